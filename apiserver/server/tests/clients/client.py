"""The Python client, `kubernetes`: named checks against the server that KUBECONFIG leads to.

Each check has a namespace of its own, prints a line, and fails with what was seen instead.
"""

import asyncio
import contextlib
import json
import sys
import threading
import traceback

import yaml
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.aio import client as aio_client
from kubernetes.aio import config as aio_config
from kubernetes.client.exceptions import ApiException
from kubernetes.informer import ADDED, DELETED, MODIFIED, SharedInformer
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock

CHECKS = []
# A wait that takes longer waits for something that does not come.
LIMIT = 60


def check(function):
    """Adds a check: a function of the name of its namespace."""
    CHECKS.append(function)
    return function


def same(seen, expected):
    assert seen == expected, f"{seen!r} instead of {expected!r}"


@contextlib.contextmanager
def refused(code, reason, *texts):
    """Expects a refusal with this code and reason, and these texts in its message; yields where its Status will be."""
    said = {}
    try:
        yield said
    except ApiException as error:
        said.update(json.loads(error.body))
        same((error.status, said["code"], said["reason"]), (code, code, reason))
        for text in texts:
            assert text in said["message"], f"{said['message']!r} lacks {text!r}"
    else:
        raise AssertionError(f"it was not refused with {code} {reason}")


def fields(said):
    return [cause["field"] for cause in said["details"]["causes"]]


def config_map(name, labels=None, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data=data)


def deployment(name, replicas=1):
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": name}),
        spec=client.V1PodSpec(containers=[client.V1Container(name="main", image="app:1")]),
    )
    spec = client.V1DeploymentSpec(
        replicas=replicas, selector=client.V1LabelSelector(match_labels={"app": name}), template=template
    )
    return client.V1Deployment(metadata=client.V1ObjectMeta(name=name), spec=spec)


def create_pod(namespace, name):
    pod = client.V1Pod(
        metadata=client.V1ObjectMeta(name=name, labels={"app": name}),
        spec=client.V1PodSpec(containers=[client.V1Container(name="main", image="app:1")]),
    )
    return client.CoreV1Api().create_namespaced_pod(namespace, pod)


def api_of(context):
    return client.CoreV1Api(config.new_client_from_config(context=context))


def names(objects):
    return [one.metadata.name for one in objects.items]


@check
def versions_and_groups_are_told(namespace):
    version = client.VersionApi().get_code()
    same((version.major, version.minor), ("1", "36"))
    groups = [group.name for group in client.ApisApi().get_api_versions().groups]
    assert {"apps", "batch", "policy"} <= set(groups), groups
    resources = [one.name for one in client.AppsV1Api().get_api_resources().resources]
    assert {"deployments", "deployments/scale"} <= set(resources), resources


@check
def objects_are_created_read_and_replaced(namespace):
    core = client.CoreV1Api()
    made = core.create_namespaced_config_map(namespace, config_map("one", a="1"))
    read = core.read_namespaced_config_map("one", namespace)
    same(read.to_dict(), made.to_dict())
    read.data["a"] = "2"
    same(core.replace_namespaced_config_map("one", namespace, read).data, {"a": "2"})
    with refused(409, "Conflict", "the object has been modified"):
        core.replace_namespaced_config_map("one", namespace, made)
    with refused(409, "AlreadyExists", 'configmaps "one" already exists'):
        core.create_namespaced_config_map(namespace, config_map("one"))
    core.create_namespaced_config_map(namespace, config_map("dry"), dry_run="All")
    with refused(404, "NotFound", 'configmaps "dry" not found'):
        core.read_namespaced_config_map("dry", namespace)


@check
def invalid_objects_name_their_fields(namespace):
    core = client.CoreV1Api()
    bad = client.V1Service(
        metadata=client.V1ObjectMeta(name="web"),
        spec=client.V1ServiceSpec(ports=[client.V1ServicePort(port=70000, target_port="Bad_")]),
    )
    with refused(422, "Invalid", 'Service "web" is invalid') as said:
        core.create_namespaced_service(namespace, bad)
    assert {"spec.ports[0].port", "spec.ports[0].targetPort"} <= set(fields(said)), said
    with refused(400, "BadRequest", "json: cannot unmarshal"):
        core.create_namespaced_config_map(namespace, {"metadata": {"name": "bad"}, "data": {"a": 1}})
    with refused(400, "BadRequest", 'unknown field "dato"'):
        body = {"metadata": {"name": "bad"}, "dato": {}}
        core.create_namespaced_config_map(namespace, body, field_validation="Strict")


@check
def lists_come_in_pages(namespace):
    core = client.CoreV1Api()
    for name in "abcde":
        tier = "front" if name < "c" else "back"
        core.create_namespaced_config_map(namespace, config_map(name, {"tier": tier}))
    pages, token = [], None
    while token != "":
        page = core.list_namespaced_config_map(namespace, limit=2, _continue=token)
        pages.append((names(page), page.metadata.remaining_item_count))
        token = page.metadata._continue or ""
    same(pages, [(["a", "b"], 3), (["c", "d"], 1), (["e"], None)])
    selected = core.list_namespaced_config_map(namespace, label_selector="tier=front,tier!=back")
    same(names(selected), ["a", "b"])
    selected = core.list_namespaced_config_map(namespace, field_selector="metadata.name!=a")
    same(names(selected), ["b", "c", "d", "e"])
    with refused(400, "BadRequest"):
        core.list_namespaced_config_map(namespace, limit=2, _continue="torn")
    with refused(400, "BadRequest", '"data.a" is not a known field selector'):
        core.list_namespaced_config_map(namespace, field_selector="data.a=1")


@check
def answers_come_unread(namespace):
    core = client.CoreV1Api()
    core.create_namespaced_config_map(namespace, config_map("one"))
    raw = core.list_namespaced_config_map(namespace, _preload_content=False)
    same((raw.status, raw.headers["Content-Type"]), (200, "application/json"))
    listed = json.loads(raw.data)
    same((listed["kind"], len(listed["items"])), ("ConfigMapList", 1))
    _, status, headers = core.read_namespaced_config_map_with_http_info("one", namespace)
    same((status, headers["Cache-Control"]), (200, "no-cache, private"))
    assert "Audit-Id" in headers, headers


@check
def users_are_told_apart(namespace):
    for context in ["certificate", "token"]:
        same(api_of(context).read_namespace(namespace).metadata.name, namespace)
    with refused(403, "Forbidden", 'User "nobody" cannot list resource "secrets"'):
        api_of("nobody").list_namespaced_secret(namespace)
    with refused(401, "Unauthorized"):
        api_of("stranger").list_namespaced_secret(namespace)
    review = client.V1SelfSubjectReview()
    seen = client.AuthenticationV1Api(api_of("token").api_client).create_self_subject_review(review)
    same(seen.status.user_info.username, "token-admin")


@check
def patches_of_four_kinds(namespace):
    core, apps = client.CoreV1Api(), client.AppsV1Api()
    core.create_namespaced_config_map(namespace, config_map("one", a="1", b="2"))
    patch = [{"op": "test", "path": "/data/a", "value": "1"}, {"op": "remove", "path": "/data/a"}]
    # A list is a JSON patch; without a content type the rest is a strategic one.
    same(core.patch_namespaced_config_map("one", namespace, patch).data, {"b": "2"})
    with refused(422, "Invalid"):
        core.patch_namespaced_config_map("one", namespace, patch)
    merge = "application/merge-patch+json"
    patched = core.patch_namespaced_config_map(
        "one", namespace, {"data": {"b": None, "c": "3"}}, _content_type=merge
    )
    same(patched.data, {"c": "3"})
    apps.create_namespaced_deployment(namespace, deployment("web"))
    side = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "side:1"}]}}}}
    patched = apps.patch_namespaced_deployment("web", namespace, side)
    same(sorted(one.name for one in patched.spec.template.spec.containers), ["main", "side"])
    # The same as a merge patch replaces the list.
    patched = apps.patch_namespaced_deployment("web", namespace, side, _content_type=merge)
    same([one.name for one in patched.spec.template.spec.containers], ["side"])
    applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"d": "4"}}
    patched = core.patch_namespaced_config_map(
        "one", namespace, applied, field_manager="first", _content_type="application/apply-patch+yaml"
    )
    same(patched.data, {"c": "3", "d": "4"})
    with refused(409, "Conflict", "the object has been modified"):
        stale = {"metadata": {"resourceVersion": "1"}, "data": {}}
        core.patch_namespaced_config_map("one", namespace, stale)
    with refused(404, "NotFound"):
        core.patch_namespaced_config_map("absent", namespace, {"data": {}})


@check
def the_dynamic_client_finds_and_applies(namespace):
    found = dynamic.DynamicClient(client.ApiClient())
    same(found.resources.get(kind="Deployment").group_version, "apps/v1")
    same(found.resources.get(api_version="v1", kind="ConfigMap").namespaced, True)
    same(found.resources.get(api_version="apps/v1", name="deployments").kind, "Deployment")
    maps = found.resources.get(api_version="v1", kind="ConfigMap")

    def apply(manager, value, **how):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": value}}
        return maps.server_side_apply(body, namespace=namespace, field_manager=manager, **how)

    apply("first", "1")
    with refused(409, "Conflict", 'conflict with "first"') as said:
        apply("second", "2")
    same(fields(said), [".data.a"])
    taken = apply("second", "2", force_conflicts=True)
    same([entry.manager for entry in taken.metadata.managedFields], ["second"])
    with refused(404, "NotFound"):
        maps.get(name="absent", namespace=namespace)
    same([one.metadata.name for one in maps.get(namespace=namespace).items], ["one"])
    patch = {"metadata": {"name": "one"}, "data": {"b": "2"}}
    patched = maps.patch(patch, namespace=namespace, content_type="application/merge-patch+json")
    same(patched.data.to_dict(), {"a": "2", "b": "2"})
    events = maps.watch(namespace=namespace, timeout=1)
    same([(event["type"], event["object"].metadata.name) for event in events], [("ADDED", "one")])
    maps.delete(name="one", namespace=namespace)


@check
def watches_follow_from_a_revision(namespace):
    core = client.CoreV1Api()
    core.create_namespaced_config_map(namespace, config_map("before"))
    revision = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.create_namespaced_config_map(namespace, config_map("after", a="1"))
    core.patch_namespaced_config_map("after", namespace, {"data": {"a": "2"}})
    core.delete_namespaced_config_map("before", namespace)
    watcher, seen = watch.Watch(), []
    for event in watcher.stream(core.list_namespaced_config_map, namespace, resource_version=revision):
        seen.append((event["type"], event["object"].metadata.name))
        if len(seen) == 3:
            watcher.stop()
    same(seen, [("ADDED", "after"), ("MODIFIED", "after"), ("DELETED", "before")])


@check
def watches_from_forgotten_revisions_are_gone(namespace):
    core = client.CoreV1Api()
    # It tries a second time by itself, and then says what the events said.
    for how in [{}, {"timeout_seconds": 5}]:
        events = watch.Watch().stream(core.list_namespaced_config_map, namespace, resource_version="1", **how)
        try:
            raise AssertionError(f"{next(events)} instead of an error")
        except ApiException as error:
            same(error.status, 410)
            assert error.reason.startswith("Expired: too old resource version: 1 ("), error.reason


@check
def informers_hold_what_there_is(namespace):
    core = client.CoreV1Api()
    core.create_namespaced_config_map(namespace, config_map("one"))
    informer = SharedInformer(core.list_namespaced_config_map, namespace=namespace)
    seen, news = [], threading.Condition()

    def note(kind):
        def noted(one):
            with news:
                seen.append((kind, one.metadata.name))
                news.notify()

        return noted

    def wait(*expected):
        with news:
            reached = news.wait_for(lambda: seen[-1:] == [expected], LIMIT)
            assert reached, f"{seen} does not end with {expected}"

    for kind in [ADDED, MODIFIED, DELETED]:
        informer.add_event_handler(kind, note(kind))
    informer.start()
    wait("ADDED", "one")
    core.create_namespaced_config_map(namespace, config_map("two"))
    wait("ADDED", "two")
    core.patch_namespaced_config_map("two", namespace, {"data": {"a": "1"}})
    wait("MODIFIED", "two")
    core.delete_namespaced_config_map("one", namespace)
    wait("DELETED", "one")
    same([one.metadata.name for one in informer.cache.list()], ["two"])
    informer.stop()


@check
def manifests_are_created(namespace):
    documents = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": "1"}},
        {"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}},
        ]},
        client.ApiClient().sanitize_for_serialization(deployment("web")) | {"apiVersion": "apps/v1", "kind": "Deployment"},
    ]
    with open("manifests.yaml", "w") as file:
        yaml.safe_dump_all(documents, file)
    utils.create_from_yaml(client.ApiClient(), "manifests.yaml", namespace=namespace)
    same(client.AppsV1Api().read_namespaced_deployment("web", namespace).spec.replicas, 1)
    assert client.CoreV1Api().read_namespaced_service("web", namespace).spec.cluster_ip
    try:
        utils.create_from_yaml(client.ApiClient(), "manifests.yaml", namespace=namespace)
        raise AssertionError("it was not refused")
    except utils.FailToCreateError as error:
        same([(one.status, one.reason) for one in error.api_exceptions], [(409, "Conflict")] * 3)
    utils.create_from_yaml(client.ApiClient(), "manifests.yaml", namespace=namespace, apply=True)


@check
def deployments_are_scaled(namespace):
    apps = client.AppsV1Api()
    apps.create_namespaced_deployment(namespace, deployment("web"))
    scale = apps.read_namespaced_deployment_scale("web", namespace)
    same((scale.spec.replicas, scale.status.selector), (1, "app=web"))
    scale.spec.replicas = 3
    same(apps.replace_namespaced_deployment_scale("web", namespace, scale).spec.replicas, 3)
    same(apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 5}}).spec.replicas, 5)
    same(apps.read_namespaced_deployment("web", namespace).spec.replicas, 5)
    with refused(422, "Invalid", "must be greater than or equal to 0"):
        apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": -1}})


@check
def status_is_a_part_of_its_own(namespace):
    apps = client.AppsV1Api()
    apps.create_namespaced_deployment(namespace, deployment("web"))
    both = {"spec": {"replicas": 7}, "status": {"replicas": 1}}
    patched = apps.patch_namespaced_deployment_status("web", namespace, both)
    same((patched.spec.replicas, patched.status.replicas), (1, 1))
    patched = apps.patch_namespaced_deployment("web", namespace, both)
    same((patched.spec.replicas, patched.status.replicas), (7, 1))


@check
def deletions_have_preconditions(namespace):
    core = client.CoreV1Api()
    made = core.create_namespaced_config_map(namespace, config_map("one"))

    def only(**what):
        return client.V1DeleteOptions(preconditions=client.V1Preconditions(**what))

    with refused(409, "Conflict", "the UID in the precondition (another)"):
        core.delete_namespaced_config_map("one", namespace, body=only(uid="another"))
    with refused(409, "Conflict", "the ResourceVersion in the precondition (1)"):
        core.delete_namespaced_config_map("one", namespace, body=only(resource_version="1"))
    done = core.delete_namespaced_config_map("one", namespace, body=only(uid=made.metadata.uid))
    same((done.status, done.details.name), ("Success", "one"))


@check
def collections_are_deleted(namespace):
    core = client.CoreV1Api()
    for name, tier in [("a", "front"), ("b", "back"), ("c", "front")]:
        core.create_namespaced_config_map(namespace, config_map(name, {"tier": tier}))
    core.delete_collection_namespaced_config_map(namespace, label_selector="tier=front")
    same(names(core.list_namespaced_config_map(namespace)), ["b"])


@check
def evictions_respect_budgets(namespace):
    core, policy = client.CoreV1Api(), client.PolicyV1Api()
    budget = client.V1PodDisruptionBudget(
        metadata=client.V1ObjectMeta(name="all"),
        spec=client.V1PodDisruptionBudgetSpec(
            min_available=1, selector=client.V1LabelSelector(match_labels={"app": "kept"})
        ),
    )
    policy.create_namespaced_pod_disruption_budget(namespace, budget)
    running = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    for name in ["kept", "free"]:
        create_pod(namespace, name)
        core.patch_namespaced_pod_status(name, namespace, running)

    def evict(name):
        body = client.V1Eviction(metadata=client.V1ObjectMeta(name=name))
        return core.create_namespaced_pod_eviction(name, namespace, body)

    with refused(429, "TooManyRequests", "violate the pod's disruption budget"):
        evict("kept")
    evict("free")
    with refused(404, "NotFound"):
        evict("absent")


@check
def logs_need_a_pod_that_ran(namespace):
    core = client.CoreV1Api()
    create_pod(namespace, "waiting")
    # There is no content, not an empty one.
    same(core.read_namespaced_pod_log("waiting", namespace), None)
    with refused(404, "NotFound", 'pods "absent" not found'):
        core.read_namespaced_pod_log("absent", namespace)
    with refused(400, "BadRequest", "container other is not valid for pod waiting"):
        core.read_namespaced_pod_log("waiting", namespace, container="other")


@check
def leaders_are_elected(namespace):
    leads = threading.Event()
    lock = ConfigMapLock("leader", namespace, "candidate")
    # The identity is all that the candidates need of each other; this one is never followed by another.
    settings = electionconfig.Config(
        lock, lease_duration=4, renew_deadline=3, retry_period=1, onstarted_leading=leads.set, onstopped_leading=print
    )
    election = leaderelection.LeaderElection(settings)
    threading.Thread(target=election.run, daemon=True).start()
    assert leads.wait(LIMIT), "nobody leads"
    held = client.CoreV1Api().read_namespaced_config_map("leader", namespace)
    record = json.loads(held.metadata.annotations["control-plane.alpha.kubernetes.io/leader"])
    same(record["holderIdentity"], "candidate")
    other = ConfigMapLock("leader", namespace, "other")
    settings = electionconfig.Config(
        other, lease_duration=4, renew_deadline=3, retry_period=1, onstarted_leading=print, onstopped_leading=print
    )
    same(leaderelection.LeaderElection(settings).try_acquire_or_renew(), False)


@check
def the_asynchronous_client_creates_and_lists(namespace):
    async def run():
        await aio_config.load_kube_config()
        async with aio_client.ApiClient() as connection:
            core = aio_client.CoreV1Api(connection)
            body = aio_client.V1ConfigMap(metadata=aio_client.V1ObjectMeta(name="one"))
            await core.create_namespaced_config_map(namespace, body)
            listed = await core.list_namespaced_config_map(namespace)
            same(names(listed), ["one"])
            try:
                await core.read_namespaced_config_map("absent", namespace)
                raise AssertionError("it was not refused")
            except aio_client.exceptions.ApiException as error:
                same((error.status, json.loads(error.body)["reason"]), (404, "NotFound"))

    asyncio.run(run())


def main():
    config.load_kube_config()
    failed = 0
    for number, function in enumerate(CHECKS):
        namespace = f"check-{number}"
        metadata = client.V1ObjectMeta(name=namespace)
        client.CoreV1Api().create_namespace(client.V1Namespace(metadata=metadata))
        account = client.V1ServiceAccount(metadata=client.V1ObjectMeta(name="default"))
        client.CoreV1Api().create_namespaced_service_account(namespace, account)
        try:
            function(namespace)
            print(f"ok      {function.__name__}")
        except Exception as error:
            failed += 1
            print(f"FAILED  {function.__name__}: {error}")
            traceback.print_exc()
    sys.exit(1 if failed else 0)


main()
