use super::*;
use crate::stats::measure_volumes;

fn measured(host: &Host, source: Value) -> Vec<crate::stats::VolumeSample> {
    measure_volumes(&pod(source, json!({})), &host.config(), &host.cluster)
}

#[test]
fn files_of_a_pod_are_counted() {
    let host = Host::new();
    let source = json!({"emptyDir": {}});
    let folder = host.volume(source.clone()).expect("mounted");
    let empty = measured(&host, source.clone()).remove(0);
    fs::write(folder.join("file"), vec![1; 100_000]).expect("written");
    let full = measured(&host, source).remove(0);
    assert_eq!((full.name.as_str(), full.claim.as_deref()), ("v", None));
    assert!(full.is_ephemeral);
    assert!(full.used >= empty.used + 100_000, "{empty:?} {full:?}");
    assert_eq!(full.inodes_used, empty.inodes_used + 1);
    #[cfg(unix)]
    {
        let on = full.on.expect("a file system");
        assert!(on.capacity > full.used && on.capacity >= on.available);
    }
}

#[test]
#[cfg(unix)]
fn one_in_memory_is_as_large_as_it_may_be() {
    let host = Host::new();
    for (source, size) in [
        (
            json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
            1 << 20,
        ),
        // The pod's memory limit.
        (json!({"emptyDir": {"medium": "Memory"}}), 2 << 20),
    ] {
        let folder = host.volume(source.clone()).expect("mounted");
        fs::write(folder.join("file"), vec![1; 100_000]).expect("written");
        let found = measured(&host, source).remove(0);
        let on = found.on.expect("a file system");
        assert_eq!((on.capacity, on.available), (size, size - found.used));
    }
}

#[test]
fn a_claim_is_named_and_a_folder_of_the_host_has_no_figures() {
    let mut host = Host::new();
    claims::bound(&mut host, "data", "data/volumes/pvc-1");
    let folder = host.volume(claims::claim()).expect("mounted");
    fs::write(folder.join("file"), vec![1; 100_000]).expect("written");
    let found = measured(&host, claims::claim()).remove(0);
    assert_eq!(found.claim.as_deref(), Some("data"));
    assert!(!found.is_ephemeral);
    // Provisioned here: a folder of its own, and not all that its file system holds.
    assert!((100_000..10_000_000).contains(&found.used), "{found:?}");
    assert_eq!(found.inodes_used, 1);

    host.cluster.claim = None;
    assert_eq!(measured(&host, claims::claim()), []);
    let folder = host.folder.path();
    assert_eq!(measured(&host, json!({"hostPath": {"path": folder}})), []);
}
