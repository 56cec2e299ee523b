//! The toolbox's commands, in the sandbox: command line → standard output, standard error, exit code.

use std::collections::BTreeSet;

use coracle_cri::Mount;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use crate::exec::Beside;
use crate::node::port;

mod curl;

/// A container with a folder that can be written, `/data`, and one that cannot, `/config`.
async fn beside() -> Beside {
    Beside::start(|node, config| {
        let mut mount = |name: &str, read_only| {
            let host_path = node.folder.path().join(name);
            std::fs::create_dir(&host_path).unwrap();
            config.mounts.push(Mount {
                host_path: host_path.clone(),
                container_path: format!("/{name}"),
                read_only,
                within: None,
            });
            host_path
        };
        mount("data", false);
        let read_only = mount("config", true);
        std::fs::write(
            read_only.join("app.conf"),
            "colour = blue\nsize = 3\nColour = red\n",
        )
        .unwrap();
        std::fs::create_dir(read_only.join("more")).unwrap();
        std::fs::write(read_only.join("more/x.conf"), "size = 4\n").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", read_only.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../etc/passwd", read_only.join("out")).unwrap();
        std::os::unix::fs::symlink("app.conf", read_only.join("link")).unwrap();
        config.env = vec![
            ("COLOUR".to_owned(), "blue".to_owned()),
            ("EMPTY".to_owned(), String::new()),
        ];
        config.ports = vec![port("http", 8080)];
    })
    .await
}

/// Scripts for the shell, in order: each finds what the earlier ones left.
async fn check(beside: &Beside, cases: &[(&str, &str, i32)]) {
    for (script, out, code) in cases {
        let ran = beside.sh(script).await;
        assert_eq!(
            (ran.1.as_str(), ran.0),
            (*out, *code),
            "{script}\nstderr: {}",
            ran.2
        );
    }
}

#[tokio::test]
async fn files_are_listed_made_moved_and_removed() {
    let beside = beside().await;
    check(
        &beside,
        &[
            ("ls /", "config\ndata\netc\ntmp\n", 0),
            ("ls -a /config/more", ".\n..\nx.conf\n", 0),
            (
                "ls -R /config/more /config/app.conf",
                "/config/app.conf\n\n/config/more:\nx.conf\n",
                0,
            ),
            ("cd /config; ls *.conf; pwd", "app.conf\n/config\n", 0),
            ("ls /config/m*/*", "/config/more/x.conf\n", 0),
            ("ls -l /config/app.conf | cut -d ' ' -f 1,2", "-rw- 36\n", 0),
            (
                "readlink /config/link; realpath /config/link",
                "app.conf\n/config/app.conf\n",
                0,
            ),
            ("mkdir -p /data/a/b && mkdir /data/a", "", 1),
            (
                "echo one > /data/a/b/f; echo two >> /data/a/b/f; cat /data/a/b/f",
                "one\ntwo\n",
                0,
            ),
            (
                "cp -r /data/a /data/c && mv /data/c /data/d && cat /data/d/b/f",
                "one\ntwo\n",
                0,
            ),
            (
                "cp /data/d/b/f /tmp && mv /tmp/f /data/g && cat /data/g && ls /tmp",
                "one\ntwo\n",
                0,
            ),
            (
                "cd /data && ln -s g h && cat h && ls -l h | grep -o 'h -> g'",
                "one\ntwo\nh -> g\n",
                0,
            ),
            (
                "find /data -type f | sort",
                "/data/a/b/f\n/data/d/b/f\n/data/g\n",
                0,
            ),
            (
                "find /data -name 'f' -maxdepth 3 -mindepth 2; find . -maxdepth 0",
                "/data/a/b/f\n/data/d/b/f\n.\n",
                0,
            ),
            (
                "rm /data/a; rm -r /data/a; rm -f /data/none; test -e /data/a",
                "",
                1,
            ),
            (
                "touch /data/t; stat -c '%s %F' /data/t; [ -f /data/t ] && [ ! -s /data/t ]",
                "0 regular empty file\n",
                0,
            ),
            (
                "du -b /config/more | cut -f 2; wc -c < /config/app.conf",
                "/config/more\n36\n",
                0,
            ),
            ("rmdir /data/d; rm -rf /data/*; ls /data", "", 0),
            ("t=$(mktemp) && echo x > $t && cat $t && rm $t", "x\n", 0),
        ],
    )
    .await;
}

#[tokio::test]
async fn text_is_counted_cut_and_searched() {
    let beside = beside().await;
    check(
        &beside,
        &[
            ("cat -n /config/more/x.conf", "     1\tsize = 4\n", 0),
            (
                "head -n 1 /config/app.conf; tail -1 /config/app.conf",
                "colour = blue\nColour = red\n",
                0,
            ),
            ("tail -n +2 /config/app.conf", "size = 3\nColour = red\n", 0),
            (
                "printf 'abcdef' | tail -c+3; echo; printf abcdef | tail -c 2",
                "cdef\nef",
                0,
            ),
            (
                "printf 'a\\nb' | tail -n 1; printf 'a\\nb\\n' | head -c 3",
                "ba\nb",
                0,
            ),
            (
                "wc -l /config/app.conf; cat /config/app.conf | wc -w",
                "3 /config/app.conf\n9\n",
                0,
            ),
            ("grep size /config/app.conf", "size = 3\n", 0),
            (
                "grep -in COLOUR /config/app.conf",
                "1:colour = blue\n3:Colour = red\n",
                0,
            ),
            ("grep -v = /config/app.conf", "", 1),
            (
                "grep -r 'size = [0-9]' /config",
                "/config/app.conf:size = 3\n/config/more/x.conf:size = 4\n",
                0,
            ),
            (
                "grep -E 'blue|red' /config/app.conf | wc -l; grep 'a\\|b' /config/none",
                "2\n",
                2,
            ),
            (
                "echo 'a+b (c)' | grep 'a+b (c)'; echo aab | grep -o 'a\\+'",
                "a+b (c)\naa\n",
                0,
            ),
            (
                "grep -c = /config/app.conf; grep -q red /config/app.conf",
                "3\n",
                0,
            ),
            (
                "printf '1\\n2\\n3\\n4\\n5\\n' | grep -A1 -B1 3",
                "2\n3\n4\n",
                0,
            ),
            (
                "printf '3 c\\n10 a\\n3 c\\n' | sort -n | uniq -c",
                "      2 3 c\n      1 10 a\n",
                0,
            ),
            (
                "echo hello | tr a-y b-z; echo ' a  b ' | tr -d ' '; echo aab | tr -s a",
                "ifmmp\nab\nab\n",
                0,
            ),
            (
                "echo a:b:c | cut -d: -f2-; echo abcdef | cut -c 2-3",
                "b:c\nbc\n",
                0,
            ),
            (
                "echo hello | base64; echo aGVsbG8K | base64 -d",
                "aGVsbG8K\nhello\n",
                0,
            ),
            (
                "printf abc | sha256sum",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  -\n",
                0,
            ),
            (
                "printf '%s-%03d\\n' a 7 b 8; seq 2 3",
                "a-007\nb-008\n2\n3\n",
                0,
            ),
            ("basename /a/b.txt .txt; dirname /a/b.txt", "b\n/a\n", 0),
            ("echo x | tee /data/t | cat; cat /data/t", "x\nx\n", 0),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_shell_knows_what_scripts_need() {
    let beside = beside().await;
    check(
        &beside,
        &[
            ("false || echo a && echo b; true && false", "a\nb\n", 1),
            ("x='a  b'; echo $x \"$x\" '$x' ${#x} ${y:-none} ${EMPTY:+set}", "a b a  b $x 4 none\n", 0),
            ("f=/a/b.tar.gz; echo ${f##*/} ${f%.*} ${f%%.*} ${f#/a/}", "b.tar.gz /a/b.tar /a/b b.tar.gz\n", 0),
            ("echo $((2 + 3 * (4 - 1))) $((7 % 4)); i=1; i=$((i+1)); echo $i", "11 3\n2\n", 0),
            ("for i in 1 2 3; do [ $i = 2 ] && continue; echo $i; done", "1\n3\n", 0),
            ("i=0; while [ $i -lt 3 ]; do i=$((i+1)); [ $i -eq 2 ] && break; done; echo $i", "2\n", 0),
            ("if [ -d /data ]; then echo yes; elif true; then echo no; else echo never; fi", "yes\n", 0),
            ("case a.conf in *.txt) echo t;; b*|*.conf) echo c;; esac", "c\n", 0),
            ("echo $(echo a; echo b) `echo c`", "a b c\n", 0),
            ("cat <<E\nhome $COLOUR\nE\ncat <<'E'\n$COLOUR\nE\n", "home blue\n$COLOUR\n", 0),
            ("(cd /etc; X=1; pwd); pwd; echo ${X:-unset}", "/etc\n/\nunset\n", 0),
            ("echo a b | while read x y; do echo \"$y $x\"; done", "b a\n", 0),
            ("{ echo out; echo err >&2; } 2>&1 | sort", "err\nout\n", 0),
            ("ls /none 2>/dev/null; echo $?; nope 2>/data/e; echo $?; grep -c 'not found' /data/e", "1\n127\n1\n", 0),
            ("A=1 env | grep ^A=; echo ${A:-gone}; ! false", "A=1\ngone\n", 0),
            ("set -e; false; echo never", "", 1),
            ("set -- a 'b c'; echo $#; for w in \"$@\"; do echo $w; done; shift; echo $1", "2\na\nb c\nb c\n", 0),
            ("while true; do echo y; done | head -n 2", "y\ny\n", 0),
            ("echo 'echo from stdin $1' | sh -s; exit 300", "from stdin\n", 44),
            ("echo \"a # b\" # c", "a # b\n", 0),
            ("echo a; if", "", 2),
            ("sleep 1 & ", "", 2),
            ("test 1 -lt 2 -a ! -e /none; echo $?; [ a = b -o c = c ]", "0\n", 0),
        ],
    )
    .await;
    let (code, out, _) = beside
        .run(&["sh"], "x=1\nif true\nthen echo $x\nfi\nfalse\n")
        .await;
    assert_eq!((code, out.as_str()), (1, "1\n"));
    let (_, _, err) = beside.sh("hello-http").await;
    assert!(err.contains("not found in the toolbox"), "{err}");
}

/// The command lines are those of kubectl 1.27 to 1.33.
#[tokio::test]
async fn archives_go_in_and_out_as_kubectl_cp_wants_them() {
    let beside = beside().await;
    let long = "d".repeat(90) + "/" + &"f".repeat(120);
    check(
        &beside,
        &[
            (
                "mkdir -p /data/src/sub; echo hello > /data/src/sub/f; ln -s f /data/src/sub/l",
                "",
                0,
            ),
            (
                &format!(
                    "mkdir /data/src/{}; echo long > /data/src/{long}",
                    "d".repeat(90)
                ),
                "",
                0,
            ),
        ],
    )
    .await;
    let tar = |command: &'static [&'static str]| async { raw(&beside, command, b"").await };
    let (code, archive, err) = tar(&["tar", "cf", "-", "/data/src"]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(archive.len() % 10_240, 0);
    for (command, name) in [
        (&["tar", "-xmf", "-", "-C", "/data/to"][..], "to"),
        (
            &[
                "tar",
                "--no-same-permissions",
                "--no-same-owner",
                "-xmf",
                "-",
                "-C",
                "/data/too",
            ],
            "too",
        ),
    ] {
        beside.sh(&format!("mkdir /data/{name}")).await;
        let (code, _, err) = raw(&beside, command, &archive).await;
        assert_eq!((code, err.as_str()), (0, ""));
        let there = format!("cd /data/{name}/data/src && cat sub/l {long}");
        assert_eq!(beside.sh(&there).await.1, "hello\nlong\n");
    }
    let (code, rest, _) = raw(
        &beside,
        &["sh", "-c", "tar cf - /data/src | tail -c+513"],
        b"",
    )
    .await;
    assert_eq!((code, &rest[..]), (0, &archive[512..]));
    assert_eq!(
        raw(
            &beside,
            &["sh", "-c", "tar cf - /data/src | tail -c+0"],
            b""
        )
        .await
        .1,
        archive
    );
    assert_eq!(raw(&beside, &["test", "-d", "/data/src"], b"").await.0, 0);
    assert_eq!(raw(&beside, &["test", "-d", "/data/none"], b"").await.0, 1);
    check(
        &beside,
        &[
            (
                "cd /data && tar czf a.tgz -C src sub && tar xzf a.tgz -C /tmp && cat /tmp/sub/f",
                "hello\n",
                0,
            ),
            (
                "tar tf /data/a.tgz; tar xOf /data/a.tgz sub/f",
                "sub/\nsub/f\nsub/l\nhello\n",
                0,
            ),
            (
                "cd /tmp && tar xf /data/a.tgz --strip-components=1 sub/f && cat f",
                "hello\n",
                0,
            ),
            (
                "cd /data && tar cf b.tar --exclude=f src/sub && tar tf b.tar",
                "src/sub/\nsrc/sub/l\n",
                0,
            ),
        ],
    )
    .await;
    // What the system's tar makes is read, and reads what is made here.
    let made = beside.node.folder.path().join("made.tar");
    std::fs::write(&made, &archive).unwrap();
    let listed = std::process::Command::new("tar")
        .arg("tf")
        .arg(&made)
        .output()
        .unwrap();
    assert!(listed.status.success(), "{listed:?}");
    assert!(
        String::from_utf8(listed.stdout)
            .unwrap()
            .contains(&format!("data/src/{long}"))
    );
    let folder = beside.node.folder.path().join("data/src");
    let packed = std::process::Command::new("tar")
        .arg("cf")
        .arg("-")
        .arg("-C")
        .arg(folder)
        .arg(".")
        .output();
    let (code, _, err) = raw(
        &beside,
        &["tar", "-xmf", "-", "-C", "/data/to"],
        &packed.unwrap().stdout,
    )
    .await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(beside.sh(&format!("cat /data/to/{long}")).await.1, "long\n");
    let (code, _, err) = raw(&beside, &["tar", "xf", "-"], b"not an archive").await;
    assert_eq!(code, 1);
    assert!(err.contains("not a tar archive"), "{err}");
}

async fn raw(beside: &Beside, command: &[&str], input: &[u8]) -> (i32, Vec<u8>, String) {
    let mut session = beside.session(command, false).await.unwrap();
    let (mut stdin, mut stdout) = (
        session.stdin.take().unwrap(),
        session.stdout.take().unwrap(),
    );
    let (mut out, mut err) = (Vec::new(), String::new());
    let mut stderr = session.stderr.take().unwrap();
    let feed = async {
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let (code, (), _, _) = tokio::join!(
        session.exited,
        feed,
        stdout.read_to_end(&mut out),
        stderr.read_to_string(&mut err)
    );
    (code.unwrap(), out, err)
}

#[tokio::test]
async fn no_path_leads_out_of_the_container() {
    let beside = beside().await;
    check(
        &beside,
        &[
            ("cat /config/absolute 2>/dev/null", "", 1),
            ("cat /config/out 2>/dev/null", "", 1),
            ("cat /data/../../../../../etc/passwd 2>/dev/null", "", 1),
            ("ls /..", "config\ndata\netc\ntmp\n", 0),
            ("cd /data && ln -s ../../../../../../etc/passwd x; cat x 2>/dev/null", "", 1),
            ("echo x > /config/new 2>/dev/null; rm /config/app.conf 2>/dev/null; cat /config/link | wc -l", "3\n", 0),
            ("mkdir /.coracle/x 2>/dev/null; rm -rf /.coracle 2>/dev/null; cat /.coracle/address", "10.240.0.2\n", 0),
        ],
    )
    .await;
    // An archive that wants out.
    let evil = beside.node.folder.path().join("evil");
    std::fs::create_dir(&evil).unwrap();
    std::fs::write(evil.join("f"), "x").unwrap();
    let packed = std::process::Command::new("tar")
        .args(["cPf", "-", "--transform", "s,^f,../../escaped,", "-C"])
        .arg(&evil)
        .arg("f")
        .output()
        .unwrap();
    let (code, _, err) = raw(&beside, &["tar", "xf", "-", "-C", "/data"], &packed.stdout).await;
    assert_eq!(code, 2);
    assert!(err.contains("'..'"), "{err}");
}

#[tokio::test]
async fn the_pod_is_told_of() {
    let beside = beside().await;
    check(
        &beside,
        &[
            ("printenv COLOUR HOSTNAME", "blue\nweb-0\n", 0),
            ("env | grep -c .; env -i A=b env", "3\nA=b\n", 0),
            ("hostname; hostname -i", "web-0\n10.240.0.2\n", 0),
            (
                "whoami; id -u; uname; uname -m",
                "root\n0\nWASI\nwasm32\n",
                0,
            ),
            (
                "date -u -d @0 '+%F %T %a'; date -d @951782400 +%F",
                "1970-01-01 00:00:00 Thu\n2000-02-29\n",
                0,
            ),
            (
                "netstat -tln | tail -n 1",
                "tcp    0.0.0.0:8080             LISTEN\n",
                0,
            ),
            (
                "ip addr | grep -c 10.240.0.2; ip route",
                "1\ndefault dev eth0 src 10.240.0.2\n",
                0,
            ),
            (
                "ps | tail -n 1 | tr -s ' ' | cut -d ' ' -f 1,2,3,5",
                "app Running 0 hello-http.wasm\n",
                0,
            ),
            (
                "mount",
                "volume on / (rw)\nvolume on /data (rw)\nvolume on /config (ro)\n",
                0,
            ),
            (
                "df -h /data | tail -n 1 | tr -s ' ' | cut -d ' ' -f 6",
                "/data\n",
                0,
            ),
            (
                "getent hosts api; nslookup store | tail -n 1",
                "10.240.0.3      api\nAddress: 10.240.0.5\n",
                0,
            ),
            (
                "nslookup nowhere.invalid 2>/dev/null",
                "Server:\t\tthe pod's resolver\n\n",
                1,
            ),
            ("which ls nope; command -v sh", "/bin/ls\nsh\n", 0),
        ],
    )
    .await;
    let (_, help, _) = beside.run(&["help"], "").await;
    let known: BTreeSet<&str> = help
        .lines()
        .skip(2)
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for name in &known {
        let (code, _, err) = beside.run(&["which", name], "").await;
        assert_eq!(code, 0, "{name}: {err}");
        // The host sends each of them to the toolbox.
        let found = beside.session(&[name], false).await;
        assert!(found.is_ok(), "{name}: {found:?}");
    }
    assert!(known.len() > 50, "{help}");
}

#[tokio::test]
async fn http_is_spoken_over_the_pods_network() {
    let beside = beside().await;
    let (code, out, err) = beside
        .run(&["curl", "-s", "http://localhost:8080/"], "")
        .await;
    assert_eq!(code, 0, "{err}");
    assert!(!out.is_empty());
    check(
        &beside,
        &[
            ("curl -s -o /dev/null -w '%{http_code}\\n' localhost:8080", "200\n", 0),
            ("a=$(wget -qO- localhost:8080); b=$(curl -s localhost:8080); [ -n \"$a\" ] && [ \"$a\" = \"$b\" ]", "", 0),
            ("curl -sI localhost:8080 | head -n 1 | tr -d '\\r'", "HTTP/1.1 200 OK\n", 0),
            ("curl -s localhost:81; echo $?; curl -s https://localhost; echo $?; curl -s nowhere.invalid", "7\n1\n", 6),
            ("nc -z localhost 8080 && echo open; nc -z localhost 81 || echo closed", "open\nclosed\n", 0),
            ("printf 'GET / HTTP/1.0\\r\\nHost: a\\r\\n\\r\\n' | nc localhost 8080 | head -n 1 | cut -c 1-8", "HTTP/1.0\n", 0),
        ],
    )
    .await;
    let (_, _, err) = beside.sh("curl https://example.com").await;
    assert!(err.contains("no TLS"), "{err}");
}
