//! How a command ends badly: what is said on standard error, and the exit status.

use std::any::Any;
use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use super::loaded::Loaded;
use crate::admin::AdminError;
use crate::config::{Config, ConfigError, Finding, PolicySource, Step};
use crate::server::{StartError, listen_remedy};
use crate::snapshot::{BuildError, PolicyError};

/// Something went wrong at run time.
const RUNTIME: u8 = 1;
/// The command line is not one that can be followed; clap's status as well.
const USAGE: u8 = 2;
/// The configuration cannot be used; `EX_CONFIG` of sysexits.h.
const CONFIG: u8 = 78;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    shown: Shown,
}

/// Whatever it is about: all errors look alike.
#[derive(Debug)]
enum Shown {
    Mistakes(ConfigError),
    /// Drawn by the server that was asked.
    Drawn(String),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure {
            status: CONFIG,
            shown: Shown::Mistakes(error),
        }
    }
}

impl Failure {
    pub(crate) fn runtime(title: impl Into<String>, help: Option<&str>) -> Failure {
        Failure::plain(RUNTIME, title.into(), help)
    }

    pub(super) fn usage(title: impl Into<String>, help: Option<&str>) -> Failure {
        Failure::plain(USAGE, title.into(), help)
    }

    /// There is no configuration where one was expected.
    pub(super) fn config(title: impl Into<String>, help: Option<&str>) -> Failure {
        Failure::plain(CONFIG, title.into(), help)
    }

    /// A server did not start, or would not.
    pub(crate) fn start(error: &StartError, loaded: &Loaded) -> Failure {
        let status = match error {
            StartError::Build(_) => CONFIG,
            StartError::Listen { .. } | StartError::System(_) => RUNTIME,
        };
        let explained = explain(error, loaded.file.as_deref(), Some(&loaded.config));
        Failure {
            status,
            shown: Shown::Mistakes(explained),
        }
    }

    /// The admin socket cannot be opened, or could not.
    pub(super) fn admin(error: &AdminError, loaded: &Loaded) -> Failure {
        let (status, help, key): (_, _, &[&str]) = match error {
            AdminError::Token(error) => {
                let help = Some(error.remedy.clone());
                (CONFIG, help, &["admin", "tcp", "token_file"])
            }
            AdminError::Listen { error, .. } => {
                let help = listen_remedy(error).map(str::to_owned);
                (RUNTIME, help, &["admin", "tcp", "address"])
            }
            AdminError::Directory { .. } => {
                let help = "make the directory, or choose another".to_owned();
                (CONFIG, Some(help), &["admin", "socket"])
            }
            AdminError::Socket { remedy, .. } => {
                let help = remedy.map(str::to_owned);
                (RUNTIME, help, &["admin", "socket"])
            }
        };
        let finding = Finding {
            title: error.to_string(),
            help,
            place: key.iter().map(|key| (*key).into()).collect(),
        };
        let shown = ConfigError::from_findings(loaded.file.as_deref(), vec![finding]);
        Failure {
            status,
            shown: Shown::Mistakes(shown),
        }
    }

    /// A server has refused what it was asked for, and said all there is to say.
    pub(super) fn refused(drawn: String, by_config: bool) -> Failure {
        Failure {
            status: if by_config { CONFIG } else { RUNTIME },
            shown: Shown::Drawn(drawn),
        }
    }

    /// The program is wrong.
    pub(super) fn panicked(panic: &(dyn Any + Send)) -> Failure {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no reason given".to_owned());
        let help = "this is a mistake in waypost: please report it, with what led to it";
        Failure::runtime(format!("waypost broke down: {text}"), Some(help))
    }

    fn plain(status: u8, title: String, help: Option<&str>) -> Failure {
        let finding = Finding {
            title,
            help: help.map(str::to_owned),
            place: Vec::new(),
        };
        let shown = ConfigError::from_findings(None, vec![finding]);
        Failure {
            status,
            shown: Shown::Mistakes(shown),
        }
    }

    /// Says what is wrong and returns the exit status.
    pub(super) fn report(self) -> ExitCode {
        // A closed standard error leaves the exit status to tell it.
        let text = match self.shown {
            Shown::Mistakes(error) => error.render(colored()),
            Shown::Drawn(text) => text,
        };
        let _ = writeln!(io::stderr(), "{text}");
        ExitCode::from(self.status)
    }
}

/// Whether standard error is a terminal whose user has nothing against colour.
pub(super) fn colored() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// What is wrong, drawn into the file that the configuration was read from. Without a configuration, without a place.
pub(crate) fn explain(
    error: &StartError,
    file: Option<&Path>,
    config: Option<&Config>,
) -> ConfigError {
    let findings = match config {
        Some(config) => findings(error, config),
        None => findings(error, &Config::empty()),
    };
    ConfigError::from_findings(file, findings)
}

/// What is wrong, and where in the configuration it stands.
fn findings(error: &StartError, config: &Config) -> Vec<Finding> {
    match error {
        StartError::Build(BuildError::Policies(errors)) => errors
            .iter()
            .map(|error| Finding {
                title: error.to_string(),
                help: Some(error.remedy.clone()),
                place: place_of_policy(error, config),
            })
            .collect(),
        StartError::Build(BuildError::Resolve {
            upstream, address, ..
        }) => {
            let server = config
                .upstreams
                .iter()
                .find(|known| known.name == *upstream)
                .and_then(|known| {
                    let mut servers = known.servers.iter();
                    servers.position(|server| server.address == *address)
                });
            let place = [
                "upstream".into(),
                upstream.as_str().into(),
                "servers".into(),
            ];
            let server = server.map(|index| [index.into(), "address".into()]);
            vec![Finding {
                title: first_line(error),
                help: Some(BuildError::RESOLVE_REMEDY.to_owned()),
                place: place
                    .into_iter()
                    .chain(server.into_iter().flatten())
                    .collect(),
            }]
        }
        StartError::Listen {
            address,
            error: cause,
        } => {
            let mut listeners = config.listeners.iter();
            let index = listeners.position(|listener| listener.address == *address);
            vec![Finding {
                title: first_line(error),
                help: listen_remedy(cause).map(str::to_owned),
                place: vec!["listen".into(), index.unwrap_or(0).into(), "address".into()],
            }]
        }
        StartError::System(_) => vec![Finding {
            title: error.to_string(),
            help: None,
            place: Vec::new(),
        }],
    }
}

/// Its own table; for a built-in policy that has none, the upstream that uses it.
fn place_of_policy(error: &PolicyError, config: &Config) -> Vec<Step> {
    let named = |policy: &&crate::config::Policy| policy.name == error.policy;
    let index = config.policies.iter().position(|policy| named(&policy));
    let source = config
        .policies
        .iter()
        .find(named)
        .map(|policy| &policy.source);
    let has_table = match source {
        Some(PolicySource::File(_)) => true,
        // A table gives it a name that is not its own.
        Some(PolicySource::BuiltIn(name)) => *name != error.policy,
        Some(PolicySource::Rotation) | None => false,
    };
    if has_table {
        return vec![
            "policy".into(),
            error.policy.as_str().into(),
            error.key.into(),
        ];
    }
    let user = config
        .upstreams
        .iter()
        .find(|upstream| Some(upstream.policy) == index);
    user.map(|upstream| {
        vec![
            "upstream".into(),
            upstream.name.as_str().into(),
            "policy".into(),
        ]
    })
    .unwrap_or_default()
}

/// What an error says before its remedy.
fn first_line(error: &StartError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded() -> Loaded {
        let to = ["app:80,other:80".to_owned()];
        Loaded::from_arguments(":8080", &to, Some("a/sticky.wasm")).unwrap()
    }

    fn shown(failure: &Failure) -> String {
        match &failure.shown {
            Shown::Mistakes(error) => error.to_string(),
            Shown::Drawn(text) => text.clone(),
        }
    }

    fn ending(error: StartError) -> (u8, String) {
        let failure = Failure::start(&error, &loaded());
        (failure.status, shown(&failure))
    }

    #[test]
    fn a_port_in_use_is_no_mistake_in_the_configuration() {
        let (status, shown) = ending(StartError::Listen {
            address: "0.0.0.0:8080".parse().unwrap(),
            error: io::ErrorKind::AddrInUse.into(),
        });
        assert_eq!(status, 1);
        let expected = "\
error: cannot listen on 0.0.0.0:8080: address in use
 |
 = help: another program listens there; stop it or choose another port";
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_cannot_be_built_is_a_mistake_in_the_configuration() {
        let (status, shown) = ending(StartError::Build(BuildError::Policies(vec![PolicyError {
            policy: "sticky".to_owned(),
            upstream: Some("proxy".to_owned()),
            problem: "a/sticky.wasm: failed in update: ran out of stack".to_owned(),
            remedy: "mend it".to_owned(),
            key: "file",
        }])));
        assert_eq!(status, 78);
        let expected = "\
error: policy sticky for upstream proxy: a/sticky.wasm: failed in update: ran out of stack
 |
 = help: mend it";
        assert_eq!(shown, expected);

        let (status, shown) = ending(StartError::Build(BuildError::Resolve {
            upstream: "proxy".to_owned(),
            address: "other:80".to_owned(),
            error: io::Error::other("no such name"),
        }));
        assert_eq!(status, 78);
        let expected = "\
error: upstream proxy: other:80 does not resolve: no such name
 |
 = help: check the name, or give an IP address";
        assert_eq!(shown, expected);
    }

    #[test]
    fn mistakes_point_into_the_configuration() {
        let loaded = loaded();
        let error = StartError::Build(BuildError::Resolve {
            upstream: "proxy".to_owned(),
            address: "other:80".to_owned(),
            error: io::Error::other("no such name"),
        });
        let found = findings(&error, &loaded.config);
        let shown = format!("{:?}", found[0].place);
        let expected =
            r#"[Key("upstream"), Key("proxy"), Key("servers"), Index(1), Key("address")]"#;
        assert_eq!(shown, expected);
    }

    #[test]
    fn each_kind_has_its_status() {
        let status = |failure: Failure| failure.status;
        assert_eq!(status(Failure::runtime("x", None)), 1);
        assert_eq!(status(Failure::usage("x", None)), 2);
        let wrong = Config::for_proxy("x", &[], None).unwrap_err();
        assert_eq!(status(wrong.into()), 78);
        assert_eq!(ending(StartError::System(anyhow::anyhow!("x"))).0, 1);
        assert_eq!(status(Failure::panicked(&"x")), 1);
    }
}
