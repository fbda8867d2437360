//! The commands that ask a running server, or tell it something, through its admin socket.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use self::client::{Door, Question, Reply};
use super::block_on;
use super::failure::Failure;
use crate::admin::CODE_BYTES_MAX;
use crate::admin::path::encode;

mod client;

/// Which running server is meant.
#[derive(Args, Clone, Debug)]
pub(super) struct Which {
    /// Its admin socket, or http://HOST:PORT [default: as [admin] of the configuration says, or /run/waypost/admin.sock]
    #[arg(long, value_name = "SOCKET|URL")]
    admin: Option<String>,

    /// The file with the token for an http:// address
    #[arg(long, value_name = "FILE", requires = "admin")]
    token_file: Option<PathBuf>,

    /// The configuration whose [admin] says where the server is [default: waypost.toml in the current directory]
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
    config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct StatusArguments {
    /// As JSON, for programs
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    which: Which,
}

#[derive(Args, Debug)]
pub(super) struct ReloadArguments {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Give a policy new code, until its file changes
    Push {
        /// The NAME of [policy.NAME]
        name: String,

        /// A WebAssembly component or core module
        file: PathBuf,

        #[command(flatten)]
        which: Which,
    },
    /// Go back to the code that a policy had before
    Rollback {
        /// The NAME of [policy.NAME]
        name: String,

        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum BackendCommand {
    /// Let it finish what it has and give it nothing new
    Drain(BackendArguments),
    /// Take it out of use
    Down(BackendArguments),
    /// Treat it as the configuration says again
    Ready(BackendArguments),
    /// Give it another weight beside the others
    Weight {
        #[command(flatten)]
        backend: BackendArguments,

        /// 0 to 65535
        #[arg(value_parser = clap::value_parser!(u32).range(0..=65535))]
        weight: u32,
    },
}

#[derive(Args, Debug)]
pub(super) struct BackendArguments {
    /// The NAME of [upstream.NAME]
    upstream: String,

    /// A server of it, by its name or its address
    backend: String,

    #[command(flatten)]
    which: Which,
}

/// Prints what the server is doing.
pub(super) fn status(arguments: &StatusArguments) -> Result<ExitCode, Failure> {
    let accept = if arguments.json {
        "application/json"
    } else {
        "text/plain"
    };
    let reply = ask(&arguments.which, Question::get("/status", accept))?;
    print(&reply.accepted()?);
    Ok(ExitCode::SUCCESS)
}

/// Has the server read its configuration again.
pub(super) fn reload(arguments: &ReloadArguments) -> Result<ExitCode, Failure> {
    change(&arguments.which, Question::post("/reload"))
}

pub(super) fn policy(command: &PolicyCommand) -> Result<ExitCode, Failure> {
    match command {
        PolicyCommand::Push { name, file, which } => {
            let question = Question::post(format!("/policies/{}", encode(name)));
            let ended = change(which, question.with(code(file)?))?;
            print(
                "the next start takes the policy's file again: replace that, too, to keep this version\n",
            );
            Ok(ended)
        }
        PolicyCommand::Rollback { name, which } => {
            let question = Question::post(format!("/policies/{}/rollback", encode(name)));
            change(which, question)
        }
    }
}

pub(super) fn backend(command: &BackendCommand) -> Result<ExitCode, Failure> {
    let (backend, body) = match command {
        BackendCommand::Drain(backend) => (backend, json!({ "state": "drain" })),
        BackendCommand::Down(backend) => (backend, json!({ "state": "down" })),
        BackendCommand::Ready(backend) => (backend, json!({ "state": "ready" })),
        BackendCommand::Weight { backend, weight } => (backend, json!({ "weight": weight })),
    };
    let (upstream, name) = (encode(&backend.upstream), encode(&backend.backend));
    let question = Question::post(format!("/upstreams/{upstream}/backends/{name}"));
    change(&backend.which, question.with(body.to_string().into()))
}

/// The content of a policy's file. The server would refuse a larger one, only later.
fn code(file: &std::path::Path) -> Result<Vec<u8>, Failure> {
    let code = std::fs::read(file).map_err(|error| {
        let help = Some("check the path");
        Failure::runtime(format!("cannot read {}: {error}", file.display()), help)
    })?;
    if code.len() > CODE_BYTES_MAX {
        let title = format!(
            "{} is too large: a policy has at most {} MiB",
            file.display(),
            CODE_BYTES_MAX >> 20
        );
        return Err(Failure::runtime(title, None));
    }
    Ok(code)
}

/// Prints what is different now.
fn change(which: &Which, question: Question) -> Result<ExitCode, Failure> {
    let changes = ask(which, question)?.changes()?;
    if changes.is_empty() {
        print("nothing has changed\n");
    }
    for change in changes {
        print(&format!("{change}\n"));
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(which: &Which, question: Question) -> Result<Reply, Failure> {
    let door = Door::find(which)?;
    block_on(door.ask(question))
}

/// A reader who has seen enough closes the pipe; there is nobody left to tell.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
