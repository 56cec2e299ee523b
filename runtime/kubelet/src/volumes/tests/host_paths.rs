use super::*;

fn mount(host: &Host, path: &Path, kind: &str) -> Result<PathBuf, String> {
    host.volume(json!({"hostPath": {"path": path, "type": kind}}))
}

#[test]
fn what_a_host_path_is_has_to_fit_its_type() {
    let host = Host::new();
    fs::create_dir(host.path("folder")).expect("made");
    fs::write(host.path("file"), "").expect("written");
    let cases = [
        ("", "folder", ""),
        ("", "file", ""),
        ("", "made/by/nobody", ""),
        ("Directory", "folder", ""),
        ("Directory", "file", "is not a directory"),
        ("Directory", "none", "is not a directory"),
        ("DirectoryOrCreate", "new/folder", ""),
        ("DirectoryOrCreate", "file", "is not a directory"),
        ("File", "file", ""),
        ("File", "folder", "is not a file"),
        ("File", "none", "is not a file"),
        ("FileOrCreate", "folder/new", ""),
        ("FileOrCreate", "folder", "is not a file"),
        ("FileOrCreate", "none/new", "failed to create file"),
        ("Socket", "file", "is not a socket file"),
        ("CharDevice", "file", "is not a character device"),
        ("BlockDevice", "none", "is not a block device"),
        ("Nonsense", "folder", "Nonsense is an invalid volume type"),
    ];
    for (kind, path, problem) in cases {
        match mount(&host, &host.path(path), kind) {
            Ok(found) => assert!(problem.is_empty() && found.exists(), "{kind} {path}"),
            Err(error) => {
                assert!(!problem.is_empty(), "{kind} {path}: {error}");
                assert!(error.contains(problem), "{kind} {path}: {error}");
            }
        }
    }
    assert!(host.path("made/by/nobody").is_dir());
    assert!(host.path("folder/new").is_file());
    assert!(!host.path("none").exists());
}

#[cfg(unix)]
#[test]
fn sockets_and_devices_are_known_and_not_mounted() {
    let host = Host::new();
    let _socket = std::os::unix::net::UnixListener::bind(host.path("s")).expect("bound");
    for (kind, path) in [
        ("Socket", host.path("s")),
        ("CharDevice", PathBuf::from("/dev/null")),
    ] {
        let refused = mount(&host, &path, kind).expect_err(kind);
        assert!(refused.contains("neither a folder nor a file"), "{refused}");
    }
}

#[test]
fn the_data_directory_is_closed() {
    let host = Host::new();
    fs::create_dir(host.path("shared")).expect("made");
    let refused = |path: &Path, kind: &str| {
        let error = mount(&host, path, kind).expect_err("closed");
        assert!(error.contains("reaches into the data directory"), "{error}");
    };
    for path in [
        "data",
        "data/pods",
        "data/volumes/pvc-1",
        "",
        "shared/../data",
    ] {
        refused(&host.path(path), "");
    }
    refused(&host.path("data/new"), "DirectoryOrCreate");
    refused(&host.path("data/new"), "FileOrCreate");
    assert!(!host.path("data/new").exists() && !host.path("data/volumes").exists());
    refused(Path::new("/"), "");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../data", host.path("shared/link")).expect("linked");
        refused(&host.path("shared/link/pods"), "");
        refused(&host.path("shared/link/new"), "DirectoryOrCreate");
    }
}
