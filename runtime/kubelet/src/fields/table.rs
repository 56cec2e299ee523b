//! The table itself.

use super::Effect::{Elsewhere, Given, Meaningless, NotYet, Refused, Works};
use super::{Row, row};

pub(super) const FIELDS: &[Row] = &[
    row(
        &["containers"],
        Works,
        "run at once, each as an instance of its module or component (an http component: one per request)",
    ),
    row(
        &["initContainers"],
        Works,
        "run one after the other before the others; with `restartPolicy: Always` they are sidecars: the next starts once one has started, and they end after the main containers, last first",
    ),
    row(
        &["ephemeralContainers"],
        Works,
        "start in a pod that runs, once, and change neither its phase nor its readiness; `targetContainerName` is accepted: all containers share the pod's network, and none sees another's memory",
    ),
    row(
        &["restartPolicy"],
        Works,
        "with back-off: 10 s doubling to 5 min, forgotten after 10 min of running",
    ),
    row(
        &["terminationGracePeriodSeconds"],
        Works,
        "hooks included; listeners close, requests in flight finish, then the instance is dropped",
    ),
    row(
        &["activeDeadlineSeconds"],
        Works,
        "the pod fails with `DeadlineExceeded`",
    ),
    row(
        &["readinessGates"],
        Works,
        "the pod is ready when these conditions are true too",
    ),
    row(
        &["hostname", "subdomain", "setHostnameAsFQDN"],
        Works,
        "`/etc/hostname`, `/etc/hosts` (address, full name, short name), and what DNS answers for the pod; a full name of more than 64 characters cannot be the host name, and an Event says so",
    ),
    row(
        &["hostnameOverride"],
        Works,
        "`/etc/hostname` and `/etc/hosts`; DNS does not know it",
    ),
    row(&["hostAliases"], Works, "lines of `/etc/hosts`"),
    row(
        &["dnsPolicy", "dnsConfig"],
        Works,
        "`/etc/resolv.conf`, and names that guests ask for in process",
    ),
    row(
        &["enableServiceLinks"],
        Works,
        "variables for the Services of the namespace",
    ),
    row(
        &[
            "serviceAccountName",
            "serviceAccount",
            "automountServiceAccountToken",
        ],
        Works,
        "a token in `/var/run/secrets/kubernetes.io/serviceaccount`, made anew before it ends",
    ),
    row(
        &["imagePullSecrets"],
        Works,
        "credentials for registries, see images.md",
    ),
    row(
        &[
            "nodeName",
            "nodeSelector",
            "affinity.nodeAffinity",
            "tolerations",
            "schedulerName",
            "schedulingGates",
        ],
        Elsewhere,
        "the scheduler's; the kubelet refuses what does not fit its node, with upstream's reasons (`NodeAffinity`, `OutOfcpu`, …)",
    ),
    row(
        &[
            "affinity.podAffinity",
            "affinity.podAntiAffinity",
            "topologySpreadConstraints",
        ],
        NotYet,
        "there is one node",
    ),
    row(
        &["priority", "priorityClassName"],
        Elsewhere,
        "the API server sets the number",
    ),
    row(
        &["preemptionPolicy"],
        Elsewhere,
        "nothing is preempted, so there is nothing to forbid",
    ),
    row(
        &["resources"],
        Works,
        "the scheduler counts its requests, which containers that ask for nothing share under contention; its limits of memory and processor time bound the containers together, and are followed while the pod runs",
    ),
    row(
        &["overhead", "runtimeClassName"],
        Elsewhere,
        "the API server sets the overhead of the class, the scheduler counts it; every class runs wasm",
    ),
    row(
        &["os"],
        Works,
        "`linux` is let in, since tools expect it; other names are not",
    ),
    row(
        &["shareProcessNamespace"],
        Given,
        "there are no processes to see or to hide",
    ),
    row(
        &["hostUsers"],
        Given,
        "guests have no users, of the host or their own",
    ),
    row(
        &["hostNetwork"],
        NotYet,
        "the pod has an address of its own all the same; its ports are opened on the host as host ports. In a namespace that `--allow-host-network` names it has its effect: the pod's sockets reach what the host's own do, see services.md",
    ),
    row(
        &["hostPID", "hostIPC"],
        Meaningless,
        "guests have neither processes nor shared memory",
    ),
    row(
        &[
            "securityContext.runAsNonRoot",
            "securityContext.seccompProfile",
            "securityContext.appArmorProfile",
            "securityContext.fsGroupChangePolicy",
            "securityContext.seLinuxChangePolicy",
            "securityContext.supplementalGroupsPolicy",
        ],
        Given,
        "a guest is nobody and makes no system calls: it has only what its manifest gives it",
    ),
    row(
        &[
            "securityContext.runAsUser",
            "securityContext.runAsGroup",
            "securityContext.supplementalGroups",
            "securityContext.fsGroup",
            "securityContext.seLinuxOptions",
            "securityContext.sysctls",
            "securityContext.windowsOptions",
        ],
        Meaningless,
        "guests have no users, groups, labels or kernel",
    ),
    row(
        &["resourceClaims", "schedulingGroup"],
        Meaningless,
        "there are no devices to claim, and no groups of pods to place; the API server forgets a group before, as upstream",
    ),
    row(
        &["volumes"],
        Works,
        "made before the first container; see below",
    ),
    // Containers.
    row(&["containers[].name"], Works, "unique in the pod"),
    row(
        &["containers[].image"],
        Works,
        "from a registry, the node's store or a file, see images.md; a container that gets another one is started again with it",
    ),
    row(
        &["containers[].imagePullPolicy"],
        Works,
        "per reference; a `file:` that has changed is read again under `IfNotPresent` too",
    ),
    row(
        &["containers[].command", "containers[].args"],
        Works,
        "the program's name and arguments, with `$(NAME)` expanded",
    ),
    row(
        &["containers[].workingDir"],
        Works,
        "what the guest starts in",
    ),
    row(
        &["containers[].env", "containers[].envFrom"],
        Works,
        "in upstream's order and precedence, with all sources",
    ),
    row(
        &[
            "containers[].ports[].containerPort",
            "containers[].ports[].name",
            "containers[].ports[].protocol",
        ],
        Works,
        "TCP ports are bound for guests that are handed their listeners; probes and Services find them by name",
    ),
    row(
        &[
            "containers[].ports[].hostPort",
            "containers[].ports[].hostIP",
        ],
        Elsewhere,
        "ports of the host, see services.md: without `hostIP` on 127.0.0.1, as node ports are; one that is taken is an Event, and tried again",
    ),
    row(
        &["containers[].resources.limits"],
        Works,
        "`memory`: linear memories and tables together, `OOMKilled` with 137 beyond it; `cpu`: a quota per 100 ms; `ephemeral-storage`: logs, what was written to `/` and, of the pod as a whole, volumes; measured every 10 s, and the pod is evicted beyond it",
    ),
    row(
        &["containers[].resources.requests"],
        Works,
        "what the scheduler and the kubelet count; `cpu` is the weight under contention",
    ),
    row(
        &["containers[].resources.claims"],
        Meaningless,
        "there are no devices to claim",
    ),
    row(
        &["containers[].resizePolicy"],
        Works,
        "resources change while the container runs, also those that it has of its pod as a whole; `RestartContainer` starts it again",
    ),
    row(
        &[
            "containers[].restartPolicy",
            "containers[].restartPolicyRules",
        ],
        Works,
        "before the pod's; `Always` of an init container makes it a sidecar; `RestartAllContainers` starts everything over in the same sandbox, init containers first",
    ),
    row(
        &[
            "containers[].startupProbe",
            "containers[].readinessProbe",
            "containers[].livenessProbe",
        ],
        Works,
        "`httpGet` (with TLS that nobody verifies), `tcpSocket`, `grpc`, `exec`, all thresholds, and a grace of their own; a `host` changes what is sent, not whom it is sent to: probes go through the pod's network",
    ),
    row(
        &[
            "containers[].lifecycle.postStart",
            "containers[].lifecycle.preStop",
        ],
        Works,
        "`httpGet`, `exec`, `sleep`; `tcpSocket` fails, as upstream",
    ),
    row(
        &["containers[].lifecycle.stopSignal"],
        Meaningless,
        "guests get no signals",
    ),
    row(
        &[
            "containers[].terminationMessagePath",
            "containers[].terminationMessagePolicy",
        ],
        Works,
        "the last 4 KiB of the file, or of the log's end after a failure, behind the words of the trap; a file inside a mount is not looked for",
    ),
    row(
        &[
            "containers[].stdin",
            "containers[].stdinOnce",
            "containers[].tty",
        ],
        Works,
        "what `kubectl attach` reaches",
    ),
    row(
        &[
            "containers[].volumeMounts[].name",
            "containers[].volumeMounts[].mountPath",
            "containers[].volumeMounts[].readOnly",
            "containers[].volumeMounts[].subPath",
            "containers[].volumeMounts[].subPathExpr",
        ],
        Works,
        "folders and files; a file is a copy if it is read-only, and has to be on the file system of the data directory if not; a file inside another mount is refused",
    ),
    row(
        &[
            "containers[].volumeMounts[].mountPropagation",
            "containers[].volumeMounts[].recursiveReadOnly",
        ],
        Given,
        "guests mount nothing, so there is nothing to pass on",
    ),
    row(
        &["containers[].volumeDevices"],
        Meaningless,
        "guests see no devices",
    ),
    row(
        &[
            "containers[].securityContext.allowPrivilegeEscalation",
            "containers[].securityContext.runAsNonRoot",
            "containers[].securityContext.seccompProfile",
            "containers[].securityContext.appArmorProfile",
            "containers[].securityContext.capabilities.drop",
            "containers[].securityContext.procMount",
        ],
        Given,
        "a guest is nobody and makes no system calls: it has only what its manifest gives it",
    ),
    row(
        &[
            "containers[].securityContext.privileged",
            "containers[].securityContext.capabilities.add",
            "containers[].securityContext.runAsUser",
            "containers[].securityContext.runAsGroup",
            "containers[].securityContext.seLinuxOptions",
            "containers[].securityContext.windowsOptions",
        ],
        Meaningless,
        "guests have no users, capabilities, labels or kernel",
    ),
    row(
        &["containers[].securityContext.readOnlyRootFilesystem"],
        Works,
        "`/` can only be read, `/tmp` and files that are mounted one by one included; folders that are mounted, and that of `terminationMessagePath`, can be written to",
    ),
    // Volumes.
    row(&["volumes[].name"], Works, "what mounts refer to"),
    row(
        &["volumes[].emptyDir.medium"],
        Works,
        "`Memory` lies on disk too, and counts as memory of the pod",
    ),
    row(
        &["volumes[].emptyDir.sizeLimit"],
        Works,
        "measured every 10 s; the pod is evicted beyond it",
    ),
    row(
        &[
            "volumes[].configMap",
            "volumes[].secret",
            "volumes[].downwardAPI",
            "volumes[].projected",
        ],
        Works,
        "swapped as a whole, seconds after their sources change",
    ),
    row(
        &["volumes[].hostPath"],
        Works,
        "all types are checked; folders and files can be mounted, never the cluster's own data",
    ),
    row(
        &["volumes[].persistentVolumeClaim", "volumes[].ephemeral"],
        Works,
        "claims bound to `hostPath` or `local` volumes; the class `standard` makes folders below `volumes/` in the data directory",
    ),
    row(
        &["volumes[].image"],
        Works,
        "pulled with the containers that mount it, and read-only",
    ),
    row(
        &["volumes[].csi"],
        Refused,
        "the pod waits with `FailedMount`",
    ),
    row(
        &[
            "volumes[].awsElasticBlockStore",
            "volumes[].azureDisk",
            "volumes[].azureFile",
            "volumes[].cephfs",
            "volumes[].cinder",
            "volumes[].fc",
            "volumes[].flexVolume",
            "volumes[].flocker",
            "volumes[].gcePersistentDisk",
            "volumes[].gitRepo",
            "volumes[].glusterfs",
            "volumes[].iscsi",
            "volumes[].nfs",
            "volumes[].photonPersistentDisk",
            "volumes[].portworxVolume",
            "volumes[].quobyte",
            "volumes[].rbd",
            "volumes[].scaleIO",
            "volumes[].storageos",
            "volumes[].vsphereVolume",
        ],
        Refused,
        "the pod waits with `FailedMount`",
    ),
];
