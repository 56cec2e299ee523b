// `@kubernetes/client-node`: named checks against the server that KUBECONFIG leads to.
//
// Each check has a namespace of its own, prints a line, and fails with what was seen instead. The package is in the folder
// CORACLE_NODE_MODULES, which is not above this file: so it is imported by its path.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const folder = join(process.env.CORACLE_NODE_MODULES, '@kubernetes/client-node');
const { main } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
const k8s = await import(pathToFileURL(join(folder, main)));

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);

// A wait that takes longer waits for something that does not come.
const LIMIT = 60_000;

const checks = [];
const check = (name, run) => checks.push({ name, run });

/** Expects a refusal with this code and reason, and this text in its message; returns its Status. */
async function refused(promise, code, reason, text = '') {
    const error = await promise.then(
        () => assert.fail(`it was not refused with ${code} ${reason}`),
        (error) => error,
    );
    assert.ok(error instanceof k8s.ApiException, `${error}`);
    const status = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
    assert.deepEqual([error.code, status.code, status.reason], [code, code, reason]);
    assert.ok(status.message.includes(text), `${status.message} lacks ${text}`);
    return status;
}

const fields = (status) => status.details.causes.map((cause) => cause.field);
const names = (list) => list.items.map((item) => item.metadata.name);

/** Waits until a list of what was seen has so many entries. */
async function reached(seen, length) {
    for (let waited = 0; seen.length < length; waited += 20) {
        assert.ok(waited < LIMIT, `only ${JSON.stringify(seen)} was seen`);
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}

const configMap = (name, data, labels) => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, labels },
    data,
});

const deployment = (name) => ({
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name },
    spec: {
        replicas: 1,
        selector: { matchLabels: { app: name } },
        template: {
            metadata: { labels: { app: name } },
            spec: { containers: [{ name: 'main', image: 'app:1' }] },
        },
    },
});

const pod = (name) => ({
    metadata: { name, labels: { app: name } },
    spec: { containers: [{ name: 'main', image: 'app:1' }] },
});

const create = (namespace, name, data, labels) =>
    core.createNamespacedConfigMap({ namespace, body: configMap(name, data, labels) });

check('versions and groups are told', async () => {
    const version = await config.makeApiClient(k8s.VersionApi).getCode();
    assert.deepEqual([version.major, version.minor], ['1', '36']);
    const groups = await config.makeApiClient(k8s.ApisApi).getAPIVersions();
    assert.ok(groups.groups.some((group) => group.name === 'apps'));
});

check('objects are created, read and replaced', async (namespace) => {
    const made = await create(namespace, 'one', { a: '1' });
    assert.ok(made.metadata.creationTimestamp instanceof Date);
    const read = await core.readNamespacedConfigMap({ name: 'one', namespace });
    assert.deepEqual(read, made);
    const body = { ...read, data: { a: '2' } };
    const replaced = await core.replaceNamespacedConfigMap({ name: 'one', namespace, body });
    assert.deepEqual(replaced.data, { a: '2' });
    const again = core.replaceNamespacedConfigMap({ name: 'one', namespace, body });
    await refused(again, 409, 'Conflict', 'the object has been modified');
    await refused(create(namespace, 'one'), 409, 'AlreadyExists', 'configmaps "one" already exists');
    const absent = core.readNamespacedConfigMap({ name: 'absent', namespace });
    await refused(absent, 404, 'NotFound', 'configmaps "absent" not found');
});

check('invalid objects name their fields', async (namespace) => {
    const body = { metadata: { name: 'web' }, spec: { ports: [{ port: 70000, targetPort: 'Bad_' }] } };
    const status = await refused(core.createNamespacedService({ namespace, body }), 422, 'Invalid');
    assert.deepEqual(fields(status), ['spec.ports[0].port', 'spec.ports[0].targetPort']);
    const misspelt = { ...configMap('bad'), metadata: { name: 'bad', namespace }, dato: {} };
    // The client takes what it does not know out of typed objects; untyped ones go as they are.
    const wrong = objects.create({ ...misspelt, data: { a: 1 } });
    await refused(wrong, 400, 'BadRequest', 'json: cannot unmarshal');
});

check('lists come in pages', async (namespace) => {
    for (const name of ['a', 'b', 'c', 'd', 'e']) {
        await create(namespace, name, {}, { tier: name < 'c' ? 'front' : 'back' });
    }
    const pages = [];
    let token;
    do {
        const page = await core.listNamespacedConfigMap({ namespace, limit: 2, _continue: token });
        pages.push([names(page), page.metadata.remainingItemCount]);
        token = page.metadata._continue;
    } while (token);
    assert.deepEqual(pages, [[['a', 'b'], 3], [['c', 'd'], 1], [['e'], undefined]]);
    const front = await core.listNamespacedConfigMap({ namespace, labelSelector: 'tier in (front)' });
    assert.deepEqual(names(front), ['a', 'b']);
    const torn = core.listNamespacedConfigMap({ namespace, limit: 2, _continue: 'torn' });
    await refused(torn, 400, 'BadRequest');
});

check('users are told apart', async (namespace) => {
    const as = (context) => {
        const other = new k8s.KubeConfig();
        other.loadFromDefault();
        other.setCurrentContext(context);
        return other.makeApiClient(k8s.CoreV1Api);
    };
    assert.equal((await as('token').readNamespace({ name: namespace })).metadata.name, namespace);
    const forbidden = as('nobody').listNamespacedSecret({ namespace });
    await refused(forbidden, 403, 'Forbidden', 'User "nobody" cannot list resource "secrets"');
    // Of this refusal the client keeps no body.
    await assert.rejects(as('stranger').listNamespacedSecret({ namespace }), { code: 401 });
});

check('patches of four kinds', async (namespace) => {
    await create(namespace, 'one', { a: '1', b: '2' });
    const patch = (body, strategy, more = {}) =>
        core.patchNamespacedConfigMap(
            { name: 'one', namespace, body, ...more },
            k8s.setHeaderOptions('Content-Type', strategy),
        );
    const json = [
        { op: 'test', path: '/data/a', value: '1' },
        { op: 'remove', path: '/data/a' },
    ];
    assert.deepEqual((await patch(json, k8s.PatchStrategy.JsonPatch)).data, { b: '2' });
    await refused(patch(json, k8s.PatchStrategy.JsonPatch), 422, 'Invalid');
    const merged = await patch({ data: { b: null, c: '3' } }, k8s.PatchStrategy.MergePatch);
    assert.deepEqual(merged.data, { c: '3' });
    const applied = (value) => configMap('one', { d: value });
    const apply = (manager, value, more) =>
        patch(applied(value), k8s.PatchStrategy.ServerSideApply, { fieldManager: manager, ...more });
    assert.deepEqual((await apply('first', '4')).data, { c: '3', d: '4' });
    const status = await refused(apply('second', '5'), 409, 'Conflict', 'conflict with "first"');
    assert.deepEqual(fields(status), ['.data.d']);
    assert.deepEqual((await apply('second', '5', { force: true })).data, { c: '3', d: '5' });
    await apps.createNamespacedDeployment({ namespace, body: deployment('web') });
    const containers = [{ name: 'side', image: 'side:1' }];
    const strategic = await apps.patchNamespacedDeployment(
        { name: 'web', namespace, body: { spec: { template: { spec: { containers } } } } },
        k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.StrategicMergePatch),
    );
    const found = strategic.spec.template.spec.containers.map((container) => container.name);
    assert.deepEqual(found.sort(), ['main', 'side']);
});

check('objects of any kind', async (namespace) => {
    const web = deployment('web');
    web.metadata.namespace = namespace;
    const made = await objects.create(web);
    assert.equal(made.spec.replicas, 1);
    const header = { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web', namespace } };
    assert.deepEqual(await objects.read(header), made);
    assert.deepEqual(names(await objects.list('apps/v1', 'Deployment', namespace)), ['web']);
    const patched = await objects.patch({ ...header, spec: { replicas: 3 } });
    assert.equal(patched.spec.replicas, 3);
    const apply = (replicas, force) =>
        objects.patch(
            { ...header, spec: { ...web.spec, replicas } },
            undefined,
            undefined,
            'applier',
            force,
            k8s.PatchStrategy.ServerSideApply,
        );
    await refused(apply(5, false), 409, 'Conflict', '.spec.replicas');
    assert.equal((await apply(5, true)).spec.replicas, 5);
    patched.metadata.resourceVersion = '1';
    await refused(objects.replace(patched), 409, 'Conflict');
    const status = await objects.delete(header);
    assert.equal(status.status, 'Success');
    await refused(objects.read(header), 404, 'NotFound', 'deployments.apps "web" not found');
    const unknown = objects.read({ ...header, kind: 'Nothing' });
    await assert.rejects(unknown, /Unrecognized API version and kind/);
});

check('watches follow from a revision', async (namespace) => {
    await create(namespace, 'before');
    const { resourceVersion } = (await core.listNamespacedConfigMap({ namespace })).metadata;
    await create(namespace, 'after');
    await core.deleteNamespacedConfigMap({ name: 'before', namespace });
    const seen = [];
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const note = (type, object) => seen.push([type, object.metadata.name]);
    const ended = [];
    const watch = await new k8s.Watch(config).watch(path, { resourceVersion }, note, () => ended.push(true));
    await reached(seen, 2);
    watch.abort();
    await reached(ended, 1);
    assert.deepEqual(seen, [['ADDED', 'after'], ['DELETED', 'before']]);
});

check('watches from forgotten revisions are gone', async (namespace) => {
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const [seen, ended] = [[], []];
    const note = (type, object) => seen.push([type, object.code, object.reason]);
    await new k8s.Watch(config).watch(path, { resourceVersion: '1' }, note, (error) => ended.push(error));
    await reached(ended, 1);
    assert.deepEqual(seen, [['ERROR', 410, 'Expired']]);
});

check('informers hold what there is', async (namespace) => {
    await create(namespace, 'one');
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const informer = k8s.makeInformer(config, path, () => core.listNamespacedConfigMap({ namespace }));
    const seen = [];
    for (const kind of ['add', 'update', 'delete']) {
        informer.on(kind, (object) => seen.push([kind, object.metadata.name]));
    }
    await informer.start();
    await create(namespace, 'two');
    await reached(seen, 2);
    await core.patchNamespacedConfigMap(
        { name: 'two', namespace, body: { data: { a: '1' } } },
        k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch),
    );
    await reached(seen, 3);
    await core.deleteNamespacedConfigMap({ name: 'one', namespace });
    await reached(seen, 4);
    await informer.stop();
    assert.deepEqual(seen, [['add', 'one'], ['add', 'two'], ['update', 'two'], ['delete', 'one']]);
    assert.deepEqual(informer.list(namespace).map((object) => object.metadata.name), ['two']);
    assert.deepEqual(informer.get('two', namespace).data, { a: '1' });
});

check('deployments are scaled', async (namespace) => {
    await apps.createNamespacedDeployment({ namespace, body: deployment('web') });
    const body = await apps.readNamespacedDeploymentScale({ name: 'web', namespace });
    assert.deepEqual([body.spec.replicas, body.status.selector], [1, 'app=web']);
    body.spec.replicas = 4;
    const scaled = await apps.replaceNamespacedDeploymentScale({ name: 'web', namespace, body });
    assert.equal(scaled.spec.replicas, 4);
    body.metadata.resourceVersion = undefined;
    body.spec.replicas = -1;
    await refused(apps.replaceNamespacedDeploymentScale({ name: 'web', namespace, body }), 422, 'Invalid');
});

check('deletions have preconditions', async (namespace) => {
    const made = await create(namespace, 'one');
    const remove = (preconditions) =>
        core.deleteNamespacedConfigMap({ name: 'one', namespace, body: { preconditions } });
    await refused(remove({ uid: 'another' }), 409, 'Conflict', 'the UID in the precondition (another)');
    const done = await remove({ uid: made.metadata.uid, resourceVersion: made.metadata.resourceVersion });
    assert.equal(done.status, 'Success');
});

check('collections are deleted', async (namespace) => {
    await create(namespace, 'a', {}, { tier: 'front' });
    await create(namespace, 'b', {}, { tier: 'back' });
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'tier=front' });
    assert.deepEqual(names(await core.listNamespacedConfigMap({ namespace })), ['b']);
});

check('evictions respect budgets', async (namespace) => {
    const policy = config.makeApiClient(k8s.PolicyV1Api);
    const budget = {
        metadata: { name: 'all' },
        spec: { minAvailable: 1, selector: { matchLabels: { app: 'kept' } } },
    };
    await policy.createNamespacedPodDisruptionBudget({ namespace, body: budget });
    const status = { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] };
    for (const name of ['kept', 'free']) {
        await core.createNamespacedPod({ namespace, body: pod(name) });
        await core.patchNamespacedPodStatus(
            { name, namespace, body: { status } },
            k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch),
        );
    }
    const evict = (name) => core.createNamespacedPodEviction({ name, namespace, body: { metadata: { name } } });
    await refused(evict('kept'), 429, 'TooManyRequests', "violate the pod's disruption budget");
    await evict('free');
});

check('logs need a pod', async (namespace) => {
    const absent = core.readNamespacedPodLog({ name: 'absent', namespace });
    await refused(absent, 404, 'NotFound', 'pods "absent" not found');
});

let failed = 0;
for (const [number, { name, run }] of checks.entries()) {
    const namespace = `check-${number}`;
    await core.createNamespace({ body: { metadata: { name: namespace } } });
    await core.createNamespacedServiceAccount({ namespace, body: { metadata: { name: 'default' } } });
    try {
        await run(namespace);
        console.log(`ok      ${name}`);
    } catch (error) {
        failed += 1;
        console.log(`FAILED  ${name}: ${error.stack}`);
    }
}
process.exit(failed ? 1 : 0);
