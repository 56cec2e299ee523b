//! Archives as they are, and as nobody should make them.

use std::io::Write as _;

use super::*;

fn plenty() -> UnpackLimits {
    UnpackLimits::new(1 << 20, 1000)
}

/// One entry: kind, name, link, content.
type Entry<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

fn file<'a>(name: &'a str, content: &'a [u8]) -> Entry<'a> {
    (EntryType::Regular, name, "", content)
}

fn link<'a>(name: &'a str, to: &'a str) -> Entry<'a> {
    (EntryType::Symlink, name, to, b"")
}

/// An archive with these names as they are written, sensible or not.
fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (kind, name, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

struct Image {
    folder: tempfile::TempDir,
}

impl Image {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        Self { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn add_bytes(&self, bytes: &[u8], mut limits: UnpackLimits) -> io::Result<()> {
        let path = self.folder.path().join("layer");
        fs::write(&path, bytes).unwrap();
        layer(&Disk::default(), &path, &self.root(), &mut limits)
    }

    fn add(&self, entries: &[Entry<'_>]) -> io::Result<()> {
        self.add_bytes(&archive(entries), plenty())
    }

    fn error(&self, entries: &[Entry<'_>]) -> String {
        let error = self.add(entries).unwrap_err().to_string();
        let secret = fs::read_to_string(self.folder.path().join("secret"));
        assert_eq!(secret.unwrap(), "secret");
        error
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root().join(path)).ok()
    }
}

#[test]
fn layers_go_over_each_other() {
    let image = Image::new();
    image
        .add(&[
            file("a/one", b"1"),
            file("a/two", b"2"),
            file("b/three", b"3"),
            file("c", b"c"),
        ])
        .unwrap();
    image
        .add(&[
            file("a/.wh.one", b""),
            file("a/two", b"new"),
            file("b/.wh..wh..opq", b""),
            file("b/four", b"4"),
            file("c/now-a-folder", b""),
        ])
        .unwrap();
    assert_eq!(image.read("a/one"), None);
    assert_eq!(image.read("a/two").unwrap(), "new");
    assert_eq!(image.read("b/three"), None);
    assert_eq!(image.read("b/four").unwrap(), "4");
    assert!(image.root().join("c/now-a-folder").exists());
}

#[test]
fn an_opaque_folder_keeps_what_its_own_layer_has() {
    let image = Image::new();
    image
        .add(&[file("d/old", b""), file("d/e/old", b"")])
        .unwrap();
    image
        .add(&[
            file("d/e/new", b""),
            file("d/new", b""),
            file("d/.wh..wh..opq", b""),
        ])
        .unwrap();
    assert!(image.root().join("d/new").exists() && image.root().join("d/e/new").exists());
    assert!(!image.root().join("d/old").exists() && !image.root().join("d/e/old").exists());
}

#[test]
fn an_opaque_folder_hides_lower_files_in_folders_that_its_layer_names() {
    let image = Image::new();
    image
        .add(&[file("d/e/old", b""), file("d/e.g/old", b"")])
        .unwrap();
    image
        .add(&[
            (EntryType::Directory, "d/e", "", b""),
            file("d/e/new", b""),
            file("d/.wh..wh..opq", b""),
            // A second mark finds only what is this layer's.
            file("d/later", b""),
            file("d/.wh..wh..opq", b""),
            file("d/e/.wh..wh..opq", b""),
        ])
        .unwrap();
    for (path, is_there) in [
        ("d/e/new", true),
        ("d/later", true),
        ("d/e/old", false),
        ("d/e.g", false),
    ] {
        assert_eq!(image.root().join(path).exists(), is_there, "{path}");
    }
}

#[test]
fn a_folder_is_looked_through_for_one_of_its_opaque_marks() {
    let image = Image::new();
    let disk = Disk::default();
    let root = image.root();
    let mut left = plenty();
    let mut layer = Layer {
        disk: &disk,
        root: &root,
        left: &mut left,
        made: BTreeSet::new(),
        hidden: BTreeSet::new(),
    };
    let folder = root.join("d");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("old"), "").unwrap();
    layer.hide_all(&folder).unwrap();
    assert!(!folder.join("old").exists());
    // Nobody unpacks a file without telling; so this one shows whether anybody looks again.
    fs::write(folder.join("untold"), "").unwrap();
    layer.hide_all(&folder).unwrap();
    assert!(folder.join("untold").exists());
}

#[test]
fn paths_that_lead_out_are_refused() {
    for name in [
        "../secret",
        "a/../../secret",
        "/../secret",
        "a/b/../../../secret",
    ] {
        let error = Image::new().error(&[file(name, b"evil")]);
        assert!(error.contains("leads out"), "{name}: {error}");
    }
    // An absolute path is one in the image.
    let image = Image::new();
    image
        .add(&[file("/etc/motd", b"hi"), file("./x", b"x")])
        .unwrap();
    assert_eq!(image.read("etc/motd").unwrap(), "hi");
    assert_eq!(image.read("x").unwrap(), "x");
}

#[cfg(unix)]
#[test]
fn links_lead_nowhere_but_into_the_image() {
    let image = Image::new();
    let outside = image.folder.path().to_str().unwrap().to_owned();
    // A file through a link that points out lands nowhere, or in the image.
    for target in ["..", "../..", outside.as_str(), "/", "/nowhere"] {
        let image = Image::new();
        let _ = image.add(&[link("out", target), file("out/secret", b"evil")]);
        let secret = fs::read_to_string(image.folder.path().join("secret")).unwrap();
        assert_eq!(secret, "secret", "{target}");
    }
    // A file over a link replaces the link and not what it points to.
    let secret = format!("{outside}/secret");
    image
        .add(&[link("x", &secret), file("x", b"mine")])
        .unwrap();
    assert_eq!(image.read("x").unwrap(), "mine");
    // Hard links cannot reach out either.
    let error = image.error(&[(EntryType::Link, "h", "../secret", b"")]);
    assert!(error.contains("leads out"), "{error}");
    let error = image.error(&[link("s", &secret), (EntryType::Link, "h", "s", b"")]);
    assert!(error.contains("not there"), "{error}");
    let error = image.error(&[link("l1", "l2"), link("l2", "l1"), file("l1/x", b"")]);
    assert!(error.contains("links in a row"), "{error}");
    // Those of the image work, absolute ones too.
    image
        .add(&[
            file("lib/a", b"a"),
            link("usr/lib", "/lib"),
            file("usr/lib/b", b"b"),
        ])
        .unwrap();
    assert_eq!(image.read("usr/lib/a").unwrap(), "a");
    assert_eq!(image.read("lib/b").unwrap(), "b");
    let place = fs::read_link(image.root().join("usr/lib")).unwrap();
    assert_eq!(place, Path::new("../lib"));
}

#[cfg(unix)]
#[test]
fn links_that_climb_above_the_root_end_at_it() {
    for (name, to, expected) in [
        ("l", "../../etc/passwd", "etc/passwd"),
        ("l", "..", "."),
        ("l", "/", "."),
        ("l", "/../x", "x"),
        ("a/b/l", "../../../x", "../../x"),
        ("a/b/l", "/../../x", "../../x"),
        ("a/b/l", "c/../../../../x", "c/../../../x"),
        // What stays inside stays as it is.
        ("a/b/l", "../../x/", "../../x/"),
        ("a/b/l", "./x", "./x"),
    ] {
        let image = Image::new();
        image.add(&[link(name, to)]).unwrap();
        let place = fs::read_link(image.root().join(name)).unwrap();
        assert_eq!(place.as_os_str(), expected, "{name} -> {to}");
    }
}

#[test]
fn bounds_are_kept() {
    let image = Image::new();
    let small = UnpackLimits::new(10, 2);
    let one = archive(&[file("a", &[0; 11])]);
    let error = image.add_bytes(&one, small).unwrap_err().to_string();
    assert!(error.contains("larger, unpacked"), "{error}");
    let three = archive(&[file("a", b""), file("b", b""), file("c", b"")]);
    let error = image.add_bytes(&three, small).unwrap_err().to_string();
    assert!(error.contains("more files"), "{error}");
    let deep = "d/".repeat(45) + "x";
    image.add(&[file(&deep, b"")]).unwrap();
    let long = vec![b'a'; 2 << 20];
    let error = image.error(&[(EntryType::GNULongName, "././@LongLink", "", &long)]);
    assert!(error.contains("header of more than"), "{error}");
}

#[test]
fn bytes_that_are_read_past_have_a_bound() {
    let mut limits = UnpackLimits::new(1000, 10);
    let image = Image::new();
    let path = image.folder.path().join("layer");
    for kind in [EntryType::Fifo, EntryType::Block, EntryType::XGlobalHeader] {
        let padding = vec![0; 2 << 20];
        fs::write(&path, archive(&[(kind, "x", "", &padding)])).unwrap();
        let mut limits = limits;
        let error = layer(&Disk::default(), &path, &image.root(), &mut limits).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("larger, decompressed"), "{kind:?}: {error}");
    }
    // The bound is the image's, not each layer's.
    fs::write(&path, archive(&[(EntryType::Fifo, "x", "", &[0; 600_000])])).unwrap();
    layer(&Disk::default(), &path, &image.root(), &mut limits).unwrap();
    assert!(layer(&Disk::default(), &path, &image.root(), &mut limits).is_err());
}

#[test]
fn long_names_and_devices_are_read() {
    let image = Image::new();
    let long = format!("long/{}", "n".repeat(150));
    let header = format!("{long}\0");
    let pax = "27 path=extended/name/here\n";
    image
        .add(&[
            (
                EntryType::GNULongName,
                "././@LongLink",
                "",
                header.as_bytes(),
            ),
            file("short", b"long"),
            (EntryType::XHeader, "pax", "", pax.as_bytes()),
            file("short", b"pax"),
            (EntryType::Fifo, "pipe", "", b""),
        ])
        .unwrap();
    assert_eq!(image.read(&long).unwrap(), "long");
    assert_eq!(image.read("extended/name/here").unwrap(), "pax");
    assert!(!image.root().join("pipe").exists());
}

#[test]
fn damaged_archives_are_errors() {
    let whole = archive(&[file("a", &[7; 4000])]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    gzip.write_all(&whole).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd =
        ruzstd::encoding::compress_to_vec(&whole[..], ruzstd::encoding::CompressionLevel::Fastest);
    for bytes in [&whole, &gzip, &zstd] {
        Image::new().add_bytes(bytes, plenty()).unwrap();
        let cut = &bytes[..bytes.len() / 2];
        if bytes.len() > 1000 || bytes[0] == 0x1f {
            assert!(Image::new().add_bytes(cut, plenty()).is_err());
        }
        for at in [0, 5, bytes.len() / 3] {
            let mut other = bytes.clone();
            other[at] ^= 0xff;
            // Whatever becomes of it, it is no panic.
            let _ = Image::new().add_bytes(&other, plenty());
        }
    }
    // Several frames, one of them to skip.
    let mut frames = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let (first, second) = whole.split_at(1000);
    for part in [first, second] {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        frames.extend(ruzstd::encoding::compress_to_vec(part, level));
    }
    Image::new().add_bytes(&frames, plenty()).unwrap();
}
