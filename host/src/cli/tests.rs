//! What the command line takes and what it refuses.

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<(Command, Option<Filter>), ErrorKind> {
    let words = std::iter::once("waypost").chain(line.split_whitespace());
    CommandLine::try_parse_from(words)
        .and_then(CommandLine::resolve)
        .map_err(|error| error.kind())
}

fn command(line: &str) -> String {
    match parse(line) {
        Ok((command, _)) => format!("{command:?}"),
        Err(kind) => format!("{kind:?}"),
    }
}

#[test]
fn clap_agrees_with_the_definition() {
    CommandLine::command().debug_assert();
}

#[test]
fn every_way_to_ask_for_a_check() {
    let named = command("check a.toml");
    assert_eq!(named, "Check { file: Some(\"a.toml\") }");
    for line in [
        "-t a.toml",
        "--test a.toml",
        "run -t a.toml",
        "run a.toml -t",
    ] {
        assert_eq!(command(line), named, "{line}");
    }
    assert_eq!(command("run -t"), command("check"));
    assert_eq!(command("-t"), command("check waypost.toml"));
    assert_eq!(command("-t run"), "Check { file: Some(\"run\") }");
    assert_eq!(command("run"), "Run { file: None, test: false }");
}

#[test]
fn servers_may_be_given_in_any_number() {
    let Ok((Command::Proxy(arguments), None)) =
        parse("proxy --from :80 --to :1,:2 --to a:3 --policy x.wasm")
    else {
        panic!("no proxy")
    };
    assert_eq!(arguments.from, ":80");
    assert_eq!(arguments.to, [":1,:2", "a:3"]);
    assert_eq!(arguments.policy.as_deref(), Some("x.wasm"));
}

#[test]
fn the_log_level_stands_anywhere() {
    for line in ["--log debug run", "run --log debug", "demo --log debug"] {
        assert!(parse(line).unwrap().1.is_some(), "{line}");
    }
}

#[test]
fn wrong_usage_is_told_from_help() {
    use ErrorKind::*;
    for (line, kind) in [
        ("", DisplayHelpOnMissingArgumentOrSubcommand),
        ("--log debug", MissingSubcommand),
        ("--help", DisplayHelp),
        ("--version", DisplayVersion),
        ("start", InvalidSubcommand),
        ("run a b", UnknownArgument),
        ("run --log loud", ValueValidation),
        ("proxy --from :80", MissingRequiredArgument),
        ("proxy --to :80", MissingRequiredArgument),
        ("demo --requests 0", ValueValidation),
        ("demo --port 65536", ValueValidation),
        ("demo --idle --requests 5", ArgumentConflict),
    ] {
        assert_eq!(parse(line).err(), Some(kind), "{line}");
    }
}

#[test]
fn the_version_names_the_contract() {
    let shown = CommandLine::command().render_version();
    assert_eq!(shown, "waypost 0.1.0 (policy contract 0.1.0)\n");
}
