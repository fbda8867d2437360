//! Programs that a test starts: what they print, and how they end.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use waypost_tests::{Client, Wire, within};

/// A program under way. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
    child: Child,
}

/// What a program prints on one of its streams, line by line.
#[derive(Debug)]
pub(crate) struct Lines {
    incoming: UnboundedReceiver<String>,
    /// What was taken out of `incoming`.
    seen: Vec<String>,
}

/// How a program ended, and all that it printed.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` where a signal ended it.
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The `waypost` program.
pub(crate) fn waypost_file() -> PathBuf {
    env!("CARGO_BIN_EXE_waypost-under-test").into()
}

/// `waypost` with these arguments in that directory, and nothing of the test's own environment that it heeds.
pub(crate) fn waypost(directory: &Path, arguments: &[impl AsRef<str>]) -> Command {
    waypost_at(&waypost_file(), directory, arguments)
}

/// The same with another copy of the program.
pub(crate) fn waypost_at(file: &Path, directory: &Path, arguments: &[impl AsRef<str>]) -> Command {
    let mut command = Command::new(file);
    command
        // What it calls itself in a usage error.
        .arg0("waypost")
        .args(arguments.iter().map(AsRef::as_ref))
        .current_dir(directory)
        .env_remove("WAYPOST_LOG")
        .env_remove("NO_COLOR")
        .env_remove("CACHE_DIRECTORY")
        .env(
            "XDG_CACHE_HOME",
            concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"),
        )
        // Whoever debugs something else has it set.
        .env("RUST_BACKTRACE", "1");
    command
}

impl Program {
    /// Starts a program. Its standard input stays open and empty for as long as it runs.
    pub(crate) fn start(command: &mut Command) -> Program {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let stdout = Lines::of(child.stdout.take());
        let stderr = Lines::of(child.stderr.take());
        Program {
            stdout,
            stderr,
            child,
        }
    }

    /// Runs a program to its end, whatever that is.
    pub(crate) async fn run(command: &mut Command) -> Ended {
        Program::start(command).finish().await
    }

    /// `waypost run` with this configuration, once it listens.
    pub(crate) async fn serve(directory: &Path, config: &str) -> (Program, SocketAddr) {
        std::fs::write(directory.join("waypost.toml"), config).expect("a file");
        let mut program = Program::start(&mut waypost(directory, &["run", "waypost.toml"]));
        let line = program.stderr.until("listening on ").await;
        let address = line.rsplit(' ').next().expect("a word");
        let address = address.parse().expect("an address at the end of the line");
        program.stderr.until("serving on ").await;
        (program, address)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Waits for its end, which must not be a panic.
    pub(crate) async fn ended(self) -> Ended {
        let ended = self.finish().await;
        assert!(!ended.broke_down(), "{}", ended.stderr);
        ended
    }

    async fn finish(mut self) -> Ended {
        let stdout = self.stdout.rest().await;
        let stderr = self.stderr.rest().await;
        let status = self.child.wait().expect("a child of ours");
        Ended {
            status: status.code(),
            stdout,
            stderr,
        }
    }
}

impl Ended {
    /// Whether there was a panic. One of a policy is a line of the log, and not of a thread.
    pub(crate) fn broke_down(&self) -> bool {
        ["thread '", "a mistake in waypost", "backtrace", "BACKTRACE"]
            .iter()
            .any(|sign| self.stderr.contains(sign))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process, which may be gone.
pub(crate) fn signal(id: u32, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &id.to_string()])
        .stderr(Stdio::null())
        .status();
    sent.expect("the kill program");
}

impl Lines {
    fn of(stream: Option<impl Read + Send + 'static>) -> Lines {
        let stream = BufReader::new(stream.expect("a pipe"));
        let (sender, incoming) = unbounded_channel();
        // Blocking, and so not on the test's one thread; it ends with the program.
        std::thread::spawn(move || {
            for line in stream.split(b'\n').map_while(Result::ok) {
                let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Lines {
            incoming,
            seen: Vec::new(),
        }
    }

    /// The next line; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<String> {
        let what = format!("a line after {:?}", self.seen);
        let line = within(&what, self.incoming.recv()).await?;
        self.seen.push(line.clone());
        Some(line)
    }

    /// The next line with this text in it.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        loop {
            match self.next().await {
                Some(line) if line.contains(text) => return line,
                Some(_) => {}
                None => panic!("no {text:?} in {:?}", self.seen),
            }
        }
    }

    /// All lines from the first to the last.
    async fn rest(&mut self) -> String {
        while self.next().await.is_some() {}
        self.seen.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// A connection to a proxy in another process.
pub(crate) async fn connect(address: SocketAddr) -> Client {
    let stream = within("a connection", TcpStream::connect(address)).await;
    Client {
        wire: Wire::new(stream.expect("a listener")),
    }
}
