//! Push and pull with a real registry: Debian's `docker-registry`.
//!
//! Where it is not installed the tests are listed as ignored; with `CORACLE_REQUIRE_REGISTRY=1` that is
//! an error.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use coracle_clock::Clock;
use coracle_cri::{ImageError, ImageRef, ImageRequest, PullPolicy, PullSecret, PullSecretForm};
use coracle_image::{
    Build, Credential, Digest, ImageStore, Images, ImagesConfig, Name, RegistryConfig,
    RegistrySource,
};
use libtest_mimic::{Arguments, Failed, Trial};

/// The hash of `secret`, as `htpasswd -B` makes it.
const USERS: &str = "jane:$2y$05$CoracleTestRegistrySaecYlLw0yqj4/Iw0sXl6qmF49443DhgkG\n";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let version = Command::new("docker-registry").arg("--version").output();
    let is_there = version.is_ok_and(|output| output.status.success());
    let required = std::env::var_os("CORACLE_REQUIRE_REGISTRY").is_some_and(|value| value == "1");
    if required && !is_there {
        eprintln!("error: CORACLE_REQUIRE_REGISTRY=1, but docker-registry is not installed");
        return ExitCode::FAILURE;
    }
    let trial = |name: &str, test: fn() -> Result<(), Failed>| {
        Trial::test(name, test).with_ignored_flag(!is_there)
    };
    let trials = vec![
        trial("what_was_pushed_is_pulled_by_tag_and_by_digest", || {
            run(tags_and_digests())
        }),
        trial("a_registry_with_passwords_wants_the_right_one", || {
            run(passwords())
        }),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn run(test: impl Future<Output = Outcome>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime
        .block_on(test)
        .map_err(|error| error.to_string().into())
}

/// A registry in a folder, killed when dropped.
struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    fn start(folder: &Path, passwords: bool) -> Result<Self, Box<dyn std::error::Error>> {
        let users = folder.join("users");
        std::fs::write(&users, USERS)?;
        let mut config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            folder.join("registry").display()
        );
        if passwords {
            config.push_str(&format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                users.display()
            ));
        }
        let path = folder.join("registry.yml");
        std::fs::write(&path, config)?;
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or("no stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, rest) = line.split_once("listening on ")?;
                let end = rest.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit());
                Some(rest[..end.unwrap_or(rest.len())].to_owned())
            })
            .ok_or("the registry did not say where it listens")?;
        // Whatever it says further must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address })
    }

    fn name(&self, rest: &str) -> Result<Name, Box<dyn std::error::Error>> {
        Ok(format!("{}/{rest}", self.address).parse()?)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn source() -> RegistrySource {
    RegistrySource::new(RegistryConfig::default(), Clock::system())
}

fn node(folder: &Path) -> Result<Images, Box<dyn std::error::Error>> {
    Ok(Images::new(ImagesConfig {
        store: ImageStore::open(folder, Clock::system())?,
        source: Arc::new(source()),
        allowed_folders: Vec::new(),
        max_bytes: 1 << 30,
    }))
}

async fn pull(
    images: &Images,
    image: &str,
    secrets: &[PullSecret],
) -> Result<ImageRef, ImageError> {
    let request = ImageRequest {
        image: image.to_owned(),
        policy: PullPolicy::Always,
        known_digest: None,
        pull_secrets: secrets.to_vec(),
        command: Vec::new(),
    };
    images.ensure(&request).await
}

/// A program with a file beside it, and one alone, of several megabytes.
fn built(folder: &Path, store: &ImageStore) -> Result<[Digest; 2], Box<dyn std::error::Error>> {
    let program = folder.join("app.wasm");
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    bytes.extend(
        (0..3_000_000u32).flat_map(|at| (at.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()),
    );
    std::fs::write(&program, bytes)?;
    std::fs::write(folder.join("motd"), "hello")?;
    let lone = Build {
        program: program.clone(),
        ..Build::default()
    };
    let filed = Build {
        program,
        files: vec![(folder.join("motd"), "/etc/motd".to_owned())],
        ..Build::default()
    };
    let lone = lone.run(store, "lone:1")?.digest;
    Ok([lone, filed.run(store, "filed:1")?.digest])
}

async fn tags_and_digests() -> Outcome {
    let folder = tempfile::tempdir()?;
    let registry = Registry::start(folder.path(), false)?;
    let store = ImageStore::open(folder.path().join("from"), Clock::system())?;
    let [lone, filed] = built(folder.path(), &store)?;
    for (digest, repository) in [(lone, "team/lone"), (filed, "team/filed")] {
        let name = registry.name(&format!("{repository}:1"))?;
        let pushed = source().push(&store, &digest, &name, None, None).await?;
        assert_eq!(pushed, digest);
        // What is there is not sent again.
        source().push(&store, &digest, &name, None, None).await?;

        let images = node(&folder.path().join(format!("to-{}", digest.hex())))?;
        let by_tag = pull(&images, &name.to_string(), &[]).await?;
        assert_eq!(by_tag.digest, digest.to_string());
        let pinned = format!("{}/{repository}@{digest}", registry.address);
        assert_eq!(pull(&images, &pinned, &[]).await?.digest, by_tag.digest);
        let setup = images.setup(&by_tag, &[]).await?;
        let bytes = images.bytes(&setup.program).await?;
        assert_eq!(bytes, std::fs::read(folder.path().join("app.wasm"))?);
        if digest == filed {
            let files = images.files(&by_tag).await?;
            assert_eq!(std::fs::read_to_string(files.join("etc/motd"))?, "hello");
        }
    }
    let images = node(&folder.path().join("none"))?;
    let missing = registry.name("team/lone:none")?.to_string();
    let error = pull(&images, &missing, &[]).await.unwrap_err().to_string();
    assert!(
        error.contains("404 Not Found: MANIFEST_UNKNOWN: manifest unknown"),
        "{error}"
    );
    Ok(())
}

async fn passwords() -> Outcome {
    let folder = tempfile::tempdir()?;
    let registry = Registry::start(folder.path(), true)?;
    let store = ImageStore::open(folder.path().join("from"), Clock::system())?;
    let [lone, _] = built(folder.path(), &store)?;
    let name = registry.name("app:1")?;
    let error = source().push(&store, &lone, &name, None, None).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("401 Unauthorized"), "{error}");
    let jane = Credential {
        username: "jane".to_owned(),
        password: "secret".to_owned(),
        ..Credential::default()
    };
    source()
        .push(&store, &lone, &name, Some(jane), None)
        .await?;

    let images = node(&folder.path().join("to"))?;
    let error = pull(&images, &name.to_string(), &[]).await.unwrap_err();
    assert!(error.to_string().contains("imagePullSecret"), "{error}");
    let secret = |password: &str| PullSecret {
        name: "default/login".to_owned(),
        form: PullSecretForm::DockerCfg,
        content: format!(
            r#"{{"{}":{{"username":"jane","password":"{password}"}}}}"#,
            registry.address
        )
        .into_bytes(),
    };
    let wrong = [secret("wrong")];
    assert!(pull(&images, &name.to_string(), &wrong).await.is_err());
    let both = [secret("wrong"), secret("secret")];
    pull(&images, &name.to_string(), &both).await?;
    Ok(())
}
