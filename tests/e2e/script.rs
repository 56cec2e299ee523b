//! The language of the scripts, after Go's testscript.
//!
//! ```text
//! up -f guestbook            start `coracle up` with these flags and wait until it is ready
//! env NAME VALUE             what is in the environment of `up` from now on
//! printed 'text'             wait until `coracle up` has printed the text; ! for "it has not so far"
//! kubectl get pods           run a command; it must succeed …
//! ! kubectl get pod missing  … or, with !, fail
//! stdout 'text'              the last command's output contains the text; ! for "does not"
//! stderr 'text'              likewise
//! retry kubectl get pods -- 'text'   run until the output contains the text
//! set NAME kubectl get …     keep the trimmed output as $NAME
//! get http://… 'text'        fetch until the answer contains the text
//! post http://… 'body' 'text' send a form once; the answer must contain the text
//! stdin FILE                 what the next command or `up` reads from standard input
//! file PATH 'text'           wait until the file contains the text
//! background NAME kubectl …  start a command that goes on until the script ends
//! shows NAME 'text'          wait until that command's output contains the text
//! forwarded NAME BACKGROUND  wait until that kubectl forwards a port, and keep its end here as $NAME
//! echoes HOST:PORT 30 2000   so many connections at once, each of which gets so many bytes back after it has sent them
//!                            and an end
//! load NAME http://… 'text'  ask that steadily from now on, until every client has failed or
//! unload NAME                the load ends; every single request must have had its answer
//! kubectls … end             the lines between: once with kubectl, then with each kubectl.1.NN that lies
//!                            beside it; $KUBECTL is its name, fit for objects (and what commands find as KUBECTL in their
//!                            environment is its path)
//! except 1.27 kubectl …      a line that is passed over where kubectl is kubectl.1.27
//! coracle image load …       run the binary itself
//! registry                   start a registry, at $REGISTRY, for jane with the password secret
//! registry tls               start one with TLS, at $TLS_REGISTRY, for which the authority in the file $TLS_CA vouches
//! registry token             start one that wants tokens, at $TOKEN_REGISTRY: jane's, or anybody's to pull what is below public/
//! faulty                     start a registry at $FAULTY whose repositories do what they are called after, such as `broken/tiny`
//! heal                       its faults end
//! clients                    other clients have to be there: $PYTHON has the package `kubernetes`, $NODE_MODULES has
//!                            @kubernetes/client-node
//! curl                       the host's curl has to be there
//! dnsutils                   dig has to be there
//! issuer                     start an issuer of tokens, at $ISSUER, whose authority is $ISSUER_CA (one line, as in JSON)
//! token NAME '{"sub": …}'    keep a token of it with these claims as $NAME; "exp" is in seconds from now
//! languages                  the guests of other languages that `.ci/languages` makes, at $LANGUAGES
//! patience SECONDS           what commands may take from now on
//! stop | kill                Ctrl-C and wait for a clean end | SIGKILL
//! interrupt, ends 130        Ctrl-C alone, and waiting for an end with that code
//! -- file.yaml --            everything below such a line, up to the next, is a file
//! ```
//!
//! Nothing may tell of a panic. In lines and in files, `$WORK` is the script's folder, `$DATA` the data
//! directory, `$SAMPLES`, `$GUESTS` and `$SOURCES` (of those in other languages) the project's. Words are split as a shell splits them, with single
//! quotes only.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::clients;
use crate::cluster::{Up, poll};
use crate::faulty::FaultyRegistry;
use crate::issuer::Issuer;
use crate::load::Load;
use crate::registry::{Kind, Registry};
use crate::tools::{Background, contains, drain, echoes, fetch, forwarded, kubectls};

/// What a command may take before it counts as stuck.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);
/// How many node ports a script has.
const NODE_PORTS: usize = 60;
/// Below the ports that Linux gives to whoever connects (from 32768 on): one of those is taken now and then.
const FIRST_NODE_PORT: usize = 20_000;
/// What a state may take to come about.
pub(crate) const STATE_LIMIT: Duration = Duration::from_secs(60);

/// Where `.ci/languages` puts what it makes.
pub(crate) fn languages() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(target)
        .join("languages")
}

/// Runs a script; the error tells the line and what was seen.
pub(crate) fn run(path: &Path, index: usize) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let work = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (commands, files) = split(&text);
    let mut session = Session::new(work.path(), index);
    for (name, contents) in files {
        let file = work.path().join(name);
        std::fs::create_dir_all(file.parent().expect("below the folder"))
            .map_err(|e| e.to_string())?;
        std::fs::write(file, session.expand(&contents)).map_err(|error| error.to_string())?;
    }
    session
        .lines(&commands)
        .map_err(|error| format!("{}:{error}", path.display()))
}

/// Writes what was not known before into the manifests and settings of a script.
fn set_in_files(work: &Path, name: &str, value: &str) -> std::io::Result<()> {
    for entry in std::fs::read_dir(work)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|end| end == "yaml" || end == "toml")
        {
            let text = std::fs::read_to_string(&path)?;
            std::fs::write(&path, text.replace(name, value))?;
        }
    }
    Ok(())
}

/// A line and its number.
type Line = (usize, String);

fn split(text: &str) -> (Vec<Line>, BTreeMap<String, String>) {
    let (mut commands, mut files) = (Vec::new(), BTreeMap::<String, String>::new());
    let mut current: Option<String> = None;
    for (index, line) in text.lines().enumerate() {
        if let Some(name) = line
            .strip_prefix("-- ")
            .and_then(|rest| rest.strip_suffix(" --"))
        {
            current = Some(name.to_owned());
            files.insert(name.to_owned(), String::new());
        } else if let Some(file) = current.as_ref().and_then(|name| files.get_mut(name)) {
            file.push_str(line);
            file.push('\n');
        } else if !line.trim().is_empty() && !line.starts_with('#') {
            commands.push((index + 1, line.trim().to_owned()));
        }
    }
    (commands, files)
}

struct Session {
    variables: BTreeMap<String, String>,
    index: usize,
    up: Option<Up>,
    /// Kept until the script ends.
    registries: Vec<Registry>,
    faulty: Option<FaultyRegistry>,
    issuer: Option<Issuer>,
    background: BTreeMap<String, Background>,
    loads: BTreeMap<String, Load>,
    /// What `kubectl` stands for.
    kubectl: PathBuf,
    /// What `coracle up` finds in its environment.
    environment: BTreeMap<String, String>,
    /// What a command may take before it counts as stuck.
    patience: Duration,
    /// The file that the next command reads.
    stdin: Option<PathBuf>,
    stdout: String,
    stderr: String,
}

impl Session {
    fn new(work: &Path, index: usize) -> Self {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let variables = [
            ("WORK", work.to_owned()),
            ("DATA", work.join("data")),
            ("SAMPLES", project.join("samples")),
            ("GUESTS", project.join("tests/guests/wasm")),
            ("SOURCES", project.join("tests/guests/languages")),
            ("LANGUAGES", languages()),
        ];
        let variables = variables.map(|(name, path)| (name.to_owned(), path.display().to_string()));
        Self {
            variables: variables.into(),
            index,
            up: None,
            registries: Vec::new(),
            faulty: None,
            issuer: None,
            background: BTreeMap::new(),
            loads: BTreeMap::new(),
            kubectl: PathBuf::from("kubectl"),
            environment: BTreeMap::new(),
            patience: COMMAND_LIMIT,
            stdin: None,
            stdout: String::new(),
            stderr: String::new(),
        }
    }

    fn lines(&mut self, mut lines: &[Line]) -> Result<(), String> {
        while let Some(((number, line), rest)) = lines.split_first() {
            lines = rest;
            if line == "kubectls" {
                let end = rest.iter().position(|(_, line)| line == "end");
                let end = end.ok_or_else(|| format!("{number}: kubectls without an end"))?;
                self.with_each_kubectl(&rest[..end])?;
                lines = &rest[end + 1..];
                continue;
            }
            self.line(line)
                .and_then(|()| self.no_panic())
                .map_err(|error| {
                    let kubectl = self.kubectl.display();
                    let up = self.up_output();
                    format!(
                        "{number}: {line} ({kubectl})\n{error}\n--- coracle up printed ---\n{up}"
                    )
                })?;
        }
        Ok(())
    }

    fn with_each_kubectl(&mut self, lines: &[Line]) -> Result<(), String> {
        for path in kubectls() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.variables
                .insert("KUBECTL".to_owned(), name.replace('.', "-"));
            self.kubectl = path;
            self.lines(lines)?;
        }
        self.kubectl = PathBuf::from("kubectl");
        Ok(())
    }

    fn no_panic(&self) -> Result<(), String> {
        if self.stderr.contains("panicked at") || self.up_output().contains("panicked at") {
            return Err(format!("something panicked\nstderr: {}", self.stderr));
        }
        Ok(())
    }

    fn up_output(&self) -> String {
        self.up.as_ref().map(Up::output).unwrap_or_default()
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let line = match line.strip_prefix("except ") {
            Some(rest) => {
                let (version, rest) = rest.split_once(' ').ok_or("except needs a line")?;
                if self.kubectl.ends_with(format!("kubectl.{version}")) {
                    return Ok(());
                }
                rest
            }
            None => line,
        };
        let (expect_failure, line) = match line.strip_prefix("! ") {
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        let words = self.words(line)?;
        let rest = &words[1..];
        match words[0].as_str() {
            "up" if expect_failure => {
                let mut flags = vec!["up".to_owned()];
                flags.extend(self.up_flags(rest));
                self.command("coracle", &flags, true)
            }
            "up" => {
                self.up = None;
                let stdin = self.next_stdin()?;
                let flags = self.up_flags(rest);
                self.up = Some(Up::start(&flags, self.work(), &self.environment, stdin)?);
                Ok(())
            }
            "registry" => {
                let kind = Kind::named(rest.first().map(String::as_str))?;
                let registry = Registry::start(self.work(), kind)?;
                let mut known = vec![(kind.variable(), registry.address.clone())];
                if let Some(authority) = &registry.authority {
                    known.push(("TLS_CA", authority.display().to_string()));
                }
                for (name, value) in known {
                    // Files were written before it was known.
                    set_in_files(self.work(), &format!("${name}"), &value)
                        .map_err(|error| error.to_string())?;
                    self.variables.insert(name.to_owned(), value);
                }
                self.registries.push(registry);
                Ok(())
            }
            "faulty" => {
                let registry = FaultyRegistry::start()?;
                set_in_files(self.work(), "$FAULTY", &registry.address)
                    .map_err(|error| error.to_string())?;
                let address = registry.address.clone();
                self.variables.insert("FAULTY".to_owned(), address);
                self.faulty = Some(registry);
                Ok(())
            }
            "heal" => {
                self.faulty.as_ref().ok_or("nothing is faulty")?.heal();
                Ok(())
            }
            "clients" => {
                let (python, modules) = (clients::python(), clients::node_modules());
                for (name, path) in [("PYTHON", python), ("NODE_MODULES", modules)] {
                    let path = path.display().to_string();
                    self.variables.insert(name.to_owned(), path);
                }
                Ok(())
            }
            "issuer" => {
                let issuer = Issuer::start()?;
                let authority = issuer.authority.replace('\n', "\\n");
                // The longer name first, which begins like the other.
                for (name, value) in [("ISSUER_CA", authority), ("ISSUER", issuer.url.clone())] {
                    set_in_files(self.work(), &format!("${name}"), &value)
                        .map_err(|error| error.to_string())?;
                    self.variables.insert(name.to_owned(), value);
                }
                self.issuer = Some(issuer);
                Ok(())
            }
            "token" => {
                let issuer = self.issuer.as_ref().ok_or("there is no issuer")?;
                let token = issuer.token(&rest[1])?;
                self.variables.insert(rest[0].clone(), token);
                Ok(())
            }
            // Looked for before the script begins.
            "languages" | "dnsutils" => Ok(()),
            "curl" if rest.is_empty() => Ok(()),
            "patience" => {
                let seconds = rest[0].parse().map_err(|_| "patience needs seconds")?;
                self.patience = Duration::from_secs(seconds);
                Ok(())
            }
            "env" => {
                self.environment.insert(rest[0].clone(), rest[1].clone());
                Ok(())
            }
            "printed" if expect_failure => {
                // Whole, it is megabytes at the highest level of the log.
                match self
                    .running()?
                    .output()
                    .lines()
                    .find(|line| line.contains(&rest[0]))
                {
                    Some(line) => Err(format!("it printed {:?}: {line}", rest[0])),
                    None => Ok(()),
                }
            }
            "printed" => self.running()?.wait_for(&rest[0]),
            "stop" => {
                self.running()?.interrupt()?;
                self.up.take().ok_or("nothing is up")?.ends_with(0)
            }
            "interrupt" => self.running()?.interrupt(),
            "ends" => {
                let code = rest[0].parse().map_err(|_| "ends needs a code")?;
                self.up.take().ok_or("nothing is up")?.ends_with(code)
            }
            "kill" => self.up.take().ok_or("nothing is up")?.kill(),
            "stdout" => contains("stdout", &self.stdout, &rest[0], !expect_failure),
            "stderr" => contains("stderr", &self.stderr, &rest[0], !expect_failure),
            "set" => {
                self.command(&rest[1], &rest[2..], false)?;
                self.variables
                    .insert(rest[0].clone(), self.stdout.trim().to_owned());
                Ok(())
            }
            "stdin" => {
                self.stdin = Some(self.work().join(&rest[0]));
                Ok(())
            }
            "background" => {
                let running = Background::start(self.prepare(&rest[1], &rest[2..])?)?;
                self.background.insert(rest[0].clone(), running);
                Ok(())
            }
            "shows" => {
                let running = self.background.get(&rest[0]);
                let running = running.ok_or("no such background command")?;
                poll(STATE_LIMIT, || {
                    contains("its output", &running.output(), &rest[1], true)
                })
            }
            "forwarded" => {
                let running = self.background.get(&rest[1]);
                let running = running.ok_or("no such background command")?;
                let address = poll(STATE_LIMIT, || forwarded(&running.output()))?;
                self.variables.insert(rest[0].clone(), address);
                Ok(())
            }
            "load" => {
                let load = Load::start(&rest[1], &rest[2])?;
                self.loads.insert(rest[0].clone(), load);
                Ok(())
            }
            "unload" => {
                let load = self.loads.remove(&rest[0]);
                load.ok_or("no such load")?.end()
            }
            "echoes" => {
                let wrong = "echoes needs numbers";
                let connections = rest[1].parse().map_err(|_| wrong)?;
                let bytes = rest[2].parse().map_err(|_| wrong)?;
                match echoes(&rest[0], connections, bytes) {
                    Ok(()) if expect_failure => Err("it should have failed".to_owned()),
                    Err(_) if expect_failure => Ok(()),
                    outcome => outcome,
                }
            }
            "file" => poll(STATE_LIMIT, || {
                let text = std::fs::read_to_string(&rest[0]).map_err(|error| error.to_string())?;
                contains(&rest[0], &text, &rest[1], !expect_failure)
            }),
            "get" => poll(STATE_LIMIT, || fetch("GET", &rest[0], "", &rest[1])),
            "post" => fetch("POST", &rest[0], &rest[1], &rest[2]),
            "retry" => {
                let end = rest
                    .iter()
                    .position(|word| word == "--")
                    .ok_or("retry needs -- 'text'")?;
                let (command, text) = (&rest[..end], &rest[end + 1]);
                poll(STATE_LIMIT, || {
                    self.command(&command[0], &command[1..], false)?;
                    contains("stdout", &self.stdout, text, !expect_failure)
                })
            }
            program => self.command(program, rest, expect_failure),
        }
    }

    fn work(&self) -> &Path {
        Path::new(&self.variables["WORK"])
    }

    fn running(&self) -> Result<&Up, String> {
        self.up.as_ref().ok_or_else(|| "nothing is up".to_owned())
    }

    /// Every script has a data directory, a port and a range of node ports of its own.
    fn up_flags(&self, more: &[String]) -> Vec<String> {
        let first = FIRST_NODE_PORT + NODE_PORTS * self.index;
        let mut flags = vec![format!(
            "--service-node-port-range={first}-{}",
            first + NODE_PORTS - 1
        )];
        let has = |name: &str| more.iter().any(|flag| flag.starts_with(name));
        if !has("--data-dir") && !has("--in-memory") {
            flags.push(format!("--data-dir={}", self.variables["DATA"]));
        }
        if !has("--listen") {
            flags.push("--listen=127.0.0.1:0".to_owned());
        }
        flags.extend_from_slice(more);
        flags
    }

    fn prepare(&mut self, program: &str, arguments: &[String]) -> Result<Command, String> {
        let mut command = match program {
            "coracle" => Command::new(env!("CARGO_BIN_EXE_coracle")),
            "kubectl" => Command::new(&self.kubectl),
            other => Command::new(other),
        };
        let kubeconfig = format!("{}/kubeconfig", self.variables["DATA"]);
        command
            .args(arguments)
            .current_dir(self.work())
            .env("KUBECONFIG", kubeconfig)
            .env("KUBECTL", &self.kubectl)
            .env("HOME", self.work())
            .env("EDITOR", "sed -i s/before-edit/after-edit/")
            .stdin(self.next_stdin()?)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }

    fn next_stdin(&mut self) -> Result<Stdio, String> {
        match self.stdin.take() {
            Some(path) => File::open(path)
                .map(Stdio::from)
                .map_err(|error| error.to_string()),
            None => Ok(Stdio::null()),
        }
    }

    fn command(
        &mut self,
        program: &str,
        arguments: &[String],
        expect_failure: bool,
    ) -> Result<(), String> {
        let mut child = self
            .prepare(program, arguments)?
            .spawn()
            .map_err(|error| format!("failed to run {program}: {error}"))?;
        let stdout = drain(child.stdout.take().expect("piped"));
        let stderr = drain(child.stderr.take().expect("piped"));
        let status = poll(self.patience, || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("the command did not end".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        if status.is_err() {
            let _ = child.kill();
        }
        self.stdout = stdout.join().expect("the reader does not panic");
        self.stderr = stderr.join().expect("the reader does not panic");
        if status?.success() == expect_failure {
            let wanted = if expect_failure {
                "should have failed"
            } else {
                "failed"
            };
            return Err(format!(
                "the command {wanted}\nstdout: {}\nstderr: {}",
                self.stdout, self.stderr
            ));
        }
        Ok(())
    }

    fn words(&self, line: &str) -> Result<Vec<String>, String> {
        let (mut words, mut word, mut quoted, mut started) =
            (Vec::new(), String::new(), false, false);
        for character in line.chars() {
            match character {
                '\'' => {
                    quoted = !quoted;
                    started = true;
                }
                ' ' if !quoted => {
                    if started {
                        words.push(std::mem::take(&mut word));
                    }
                    started = false;
                }
                other => {
                    word.push(other);
                    started = true;
                }
            }
        }
        if quoted {
            return Err("a quote is not closed".to_owned());
        }
        if started {
            words.push(word);
        }
        Ok(words.iter().map(|word| self.expand(word)).collect())
    }

    fn expand(&self, word: &str) -> String {
        let mut word = word.to_owned();
        // Longer names first, so that $PORT2 is not read as $PORT and a 2.
        for (name, value) in self.variables.iter().rev() {
            word = word.replace(&format!("${name}"), value);
        }
        word
    }
}
