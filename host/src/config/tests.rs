//! The reader as a whole: golden messages, the files in `config/`, and whatever bytes a file may hold.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// A folder of this repository.
fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("test.toml"), text)
}

/// [`MINIMAL`] with more behind it.
fn minimal_and(text: &str) -> Config {
    parse(&format!("{MINIMAL}{text}")).unwrap()
}

const MINIMAL: &str = "[[listen]]\naddress = ':80'\n[[route]]\nupstream = 'app'\n[upstream.app]\nservers = ['127.0.0.1:3000']\n";

/// Each `NAME.toml` in the folder is refused with the messages in `NAME.txt`. `UPDATE_GOLDEN=1` writes them anew.
#[test]
fn golden_messages() {
    let folder = folder("tests/golden/config");
    let update = env::var_os("UPDATE_GOLDEN").is_some();
    let mut differing = Vec::new();
    let mut cases = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        cases += 1;
        let name = file.file_name().unwrap();
        let error = Config::parse(Path::new(name), &fs::read_to_string(&file).unwrap());
        let shown = format!("{}\n", error.expect_err(&name.to_string_lossy()));
        let golden = file.with_extension("txt");
        if update {
            fs::write(&golden, &shown).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != shown {
            differing.push(format!("--- {} is now:\n{shown}", name.display()));
        }
    }
    assert!(cases >= 20, "the cases in {} are gone", folder.display());
    assert!(
        differing.is_empty(),
        "{}\nUPDATE_GOLDEN=1 accepts this",
        differing.join("\n")
    );
}

#[test]
fn every_shipped_file_loads() {
    for entry in fs::read_dir(folder("config")).unwrap() {
        let file = entry.unwrap().path();
        let config = Config::load(&file).unwrap_or_else(|error| panic!("{error}"));
        assert!(
            !config.listeners.is_empty() && !config.routes.is_empty(),
            "{}",
            file.display()
        );
    }
}

#[test]
fn minimal_file() {
    let config = Config::load(&folder("config/minimal.toml")).unwrap();
    let expected = Config {
        listeners: vec![Listener {
            address: "0.0.0.0:8080".parse().unwrap(),
        }],
        routes: vec![Route::new(HostPattern::Any, "/", 0)],
        upstreams: vec![Upstream::new("app", 0, vec![Server::new("127.0.0.1:3000")])],
        policies: vec![Policy::built_in("round-robin").unwrap()],
        ..Config::empty()
    };
    assert_eq!(config, expected);
}

#[test]
fn nodejs_file() {
    let config = Config::load(&folder("config/nodejs.toml")).unwrap();
    let addresses: Vec<_> = config.upstreams[0]
        .servers
        .iter()
        .map(|server| server.address.as_str())
        .collect();
    assert_eq!(addresses, ["127.0.0.1:3000", "127.0.0.1:3001"]);
    assert_eq!(config.policies, [Policy::built_in("least-conn").unwrap()]);
    assert!(
        config
            .routes
            .iter()
            .all(|route| route.upgrades == ["websocket"] && route.pass_host)
    );
    assert_eq!(config.limits.request_body, Some(10 << 20));
}

/// What the reference states as defaults are the defaults.
#[test]
fn reference_states_the_defaults() {
    let config = Config::load(&folder("config/reference.toml")).unwrap();
    let second = Server {
        name: "second".to_owned(),
        labels: vec![("zone".to_owned(), "a".to_owned())],
        ..Server::new("127.0.0.1:3001")
    };
    let file = folder("config").join("../plugins/sticky.wasm");
    let expected = Config {
        listeners: vec![Listener {
            address: "0.0.0.0:8080".parse().unwrap(),
        }],
        routes: vec![Route::new(HostPattern::Any, defaults::PATH, 0)],
        upstreams: vec![Upstream::new(
            "app",
            2,
            vec![Server::new("127.0.0.1:3000"), second],
        )],
        policies: vec![
            Policy::new("sticky", PolicySource::File(file)),
            Policy::new("by-user", PolicySource::BuiltIn("consistent-hash")),
            Policy::built_in(defaults::POLICY).unwrap(),
        ],
        ..Config::empty()
    };
    assert_eq!(config, expected);
}

/// Every key that the reader asks for is in the reference, if only as `#key = example`.
#[test]
fn reference_has_every_key() {
    let file = folder("config/reference.toml");
    let text = fs::read_to_string(&file).unwrap();
    let example = |line: &str| {
        line.strip_prefix('#')
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
            .map(str::to_owned)
    };
    let lines: Vec<_> = text
        .lines()
        .map(|line| example(line).unwrap_or_else(|| line.to_owned()))
        .collect();
    let all = lines.join("\n");
    parse(&all).unwrap();

    let document = toml::de::DeTable::parse(&all).unwrap();
    let mistakes = fields::Mistakes::default();
    raw::document_config(document.get_ref(), Path::new(""), &mistakes);
    let asked = mistakes.asked.borrow();
    let missing: Vec<_> = asked.iter().filter(|(_, present)| !**present).collect();
    assert!(
        missing.is_empty(),
        "not in config/reference.toml: {missing:?}"
    );
    let kinds: BTreeSet<_> = asked.keys().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds.len(), 14, "{kinds:?}");
}

#[test]
fn values_are_read() {
    let config = parse(
        r#"
        shards = 0x10
        [[route]]
        host = "*.Example.com"
        path = "/api/"
        upstream = "b"
        upgrades = []
        pass_host = false
        [[listen]]
        address = "[::1]:8443"
        [[listen]]
        address = "127.0.0.1:0"
        [[listen]]
        address = "127.0.0.1:0"
        [upstream.b]
        policy = "mine"
        servers = ["app.internal:80"]
        max_fails = 0
        fail_timeout = "1m"
        keepalive.connections = 0
        [upstream.a]
        policy = "mine"
        [[upstream.a.servers]]
        address = "[::1]:80"
        state = "draining"
        weight = 0
        labels = { z = "1", a = "2" }
        [upstream.c]
        servers = ["app.internal:80"]
        policy = "rotation"
        [policy.unused]
        file = "/lib/unused.wasm"
        [policy.mine]
        file = "mine.wasm"
        config = { list = [1, 2.5, "x", true], since = 2026-01-02T03:04:05Z, nested = { a = {} } }
        deadline = "1s"
        memory = "100KiB"
        on_failure = "reject"
        [forwarded]
        trusted = ["10.0.0.0/8", "::1"]
        [limits]
        request_body = "0B"
        [shutdown]
        grace = "0s"
        "#,
    );
    let config = config.unwrap();
    assert_eq!(config.shards, 16);
    let route = Route {
        upgrades: vec![],
        pass_host: false,
        ..Route::new(HostPattern::Wildcard(".example.com".to_owned()), "/api", 0)
    };
    assert_eq!(config.routes, [route]);
    let upstreams: Vec<_> = config
        .upstreams
        .iter()
        .map(|upstream| (upstream.name.as_str(), upstream.policy))
        .collect();
    assert_eq!(
        upstreams,
        [("b", 1), ("a", 1), ("c", 2)],
        "in the order of the file, each policy once"
    );
    let policies: Vec<_> = config
        .policies
        .iter()
        .map(|policy| policy.name.as_str())
        .collect();
    assert_eq!(policies, ["unused", "mine", "rotation"]);
    assert_eq!(
        config.policies[0].source,
        PolicySource::File("/lib/unused.wasm".into())
    );
    assert_eq!(
        config.policies[1].source,
        PolicySource::File("mine.wasm".into())
    );
    let expected = serde_json::json!({ "list": [1, 2.5, "x", true], "since": "2026-01-02T03:04:05Z", "nested": { "a": {} } });
    assert_eq!(config.policies[1].config, expected);
    assert_eq!(
        config.policies[1].limits,
        PolicyLimits {
            deadline: Duration::from_secs(1),
            memory_max: 128 * 1024
        }
    );
    assert_eq!(config.policies[1].on_failure, OnFailure::Reject);
    assert_eq!(config.upstreams[0].fail_timeout, Duration::from_secs(60));
    assert_eq!(config.upstreams[0].keepalive.connections, 0);
    let server = &config.upstreams[1].servers[0];
    assert_eq!(
        (server.name.as_str(), server.state, server.weight),
        ("[::1]:80", ServerState::Draining, 0)
    );
    assert_eq!(
        server.labels,
        [("z", "1"), ("a", "2")].map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
    assert_eq!(config.limits.request_body, Some(0));
    assert_eq!(config.shutdown_grace, Duration::ZERO);
    assert!(config.forwarded.trusted[0].contains("::ffff:10.9.8.7".parse().unwrap()));
}

#[test]
fn policy_files_are_relative_to_the_configuration() {
    let text = format!("{MINIMAL}[policy.mine]\nfile = 'plugins/mine.wasm'\n");
    let config = Config::parse(Path::new("/etc/waypost/waypost.toml"), &text).unwrap();
    assert_eq!(
        config.policies[0].source,
        PolicySource::File("/etc/waypost/plugins/mine.wasm".into())
    );
}

#[test]
fn a_built_in_policy_can_have_settings() {
    let text = "[policy.mine]\nbuiltin = 'least-conn'\ndeadline = '9ms'\nconfig.a = 1\n[upstream.b]\npolicy = 'mine'\nservers = ['127.0.0.1:1']\n";
    let config = minimal_and(text);
    let mine = &config.policies[0];
    assert_eq!(
        (mine.name.as_str(), &mine.source),
        ("mine", &PolicySource::BuiltIn("least-conn"))
    );
    assert_eq!(mine.config, serde_json::json!({ "a": 1 }));
    assert_eq!(mine.limits.deadline, Duration::from_millis(9));
    assert_eq!(config.upstreams[0].policy, 1, "round-robin is another one");
}

#[test]
fn admin_is_found_whatever_is_wrong_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("waypost.toml");
    let load = |text: &str| {
        fs::write(&file, text).unwrap();
        Admin::load(&file)
    };
    let socket = |name: &str| Admin {
        socket: Some(directory.path().join(name)),
        tcp: None,
    };
    assert_eq!(load(MINIMAL).unwrap(), Admin::default());
    let text = "[admin]\nsocket = 'a.sock'\n";
    assert_eq!(load(text).unwrap(), socket("a.sock"));
    let broken = format!("no sense\n[[listen]]\naddress = \n{text}unknown = 1\n[route\n");
    assert_eq!(load(&broken).unwrap(), socket("a.sock"));

    let shown = load("[admin\nsocket = 'a.sock'\n").unwrap_err().to_string();
    assert!(shown.contains("waypost.toml:1:"), "{shown}");
    let shown = load("[admin]\nsocket = 1\n").unwrap_err().to_string();
    assert!(shown.contains("`socket` must be a string"), "{shown}");

    let text = format!("{MINIMAL}[admin.tcp]\naddress = '[::1]:9000'\ntoken_file = '/etc/token'\n");
    let expected = AdminTcp {
        address: "[::1]:9000".parse().unwrap(),
        token_file: "/etc/token".into(),
    };
    assert_eq!(load(&text).unwrap().tcp, Some(expected.clone()));
    assert_eq!(parse(&text).unwrap().admin.tcp, Some(expected));
}

#[test]
fn the_cache_is_somewhere_or_nowhere() {
    let cache = |text: &str| {
        let text = format!("{text}\n{MINIMAL}");
        let config = Config::parse(Path::new("/etc/waypost/waypost.toml"), &text);
        config.unwrap().cache
    };
    assert_eq!(cache(""), Cache::User);
    assert_eq!(cache("cache = true"), Cache::User);
    assert_eq!(cache("cache = false"), Cache::Off);
    let directory = |path: &str| Cache::Directory(path.into());
    assert_eq!(cache("cache = '/var/x'"), directory("/var/x"));
    assert_eq!(cache("cache = 'x'"), directory("/etc/waypost/x"));
}

#[test]
fn defaults_are_in_range() {
    let stated = minimal_and("[limits]\nfields = 100\n");
    assert_eq!(stated.limits, Limits::default());
    assert!(stated.shards >= 1 && stated.shards <= defaults::SHARDS_MAX);
}

#[test]
fn any_bytes_are_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("waypost.toml");
    let load = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        Config::load(&file)
    };
    let shown = |bytes: &[u8]| load(bytes).unwrap_err().to_string();

    assert!(load(MINIMAL.as_bytes()).is_ok());
    assert!(
        load(format!("\u{feff}{MINIMAL}").as_bytes()).is_ok(),
        "a byte order mark is no mistake"
    );
    assert!(load(MINIMAL.replace('\n', "\r\n").as_bytes()).is_ok());
    assert!(
        shown("\u{feff}x = 1".as_bytes()).contains("toml:1:1\n"),
        "a byte order mark has no width"
    );
    assert!(shown(b"").contains("there is no [[listen]]"));
    assert!(shown(b"# \xff\n").contains("UTF-8"));
    assert!(shown(b"\n\n# caf\xe9").contains("waypost.toml:3:6"));
    assert!(shown(b"\0\0\0\0").contains("not a key with a value"));
    assert!(shown(&vec![b'#'; raw::FILE_MAX + 1]).contains("at most 16MiB"));
    assert!(
        shown(&vec![b'a'; 1 << 20]).len() < 2000,
        "a long line is cut"
    );
    assert!(shown(&b"a=1\n".repeat(1 << 18)).len() < 100_000);
    assert!(
        Config::load(directory.path())
            .unwrap_err()
            .to_string()
            .contains("cannot read")
    );
    assert!(
        Config::load(&directory.path().join("none.toml"))
            .unwrap_err()
            .to_string()
            .contains("No such file")
    );
}

/// A file that an editor or a full disk cut off anywhere.
#[test]
fn truncated_anywhere() {
    let text = fs::read_to_string(folder("config/reference.toml")).unwrap();
    let text: Vec<_> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("# "))
        .collect();
    let text = format!("{}\nü = \"日本\"\n", text.join("\n"));
    assert!(text.len() > 2000);
    for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
        if let Err(error) = parse(&text[..end]) {
            let shown = error.to_string();
            assert!(
                shown.starts_with("error: ") && shown.contains("test.toml"),
                "{shown}"
            );
        }
    }
}

/// Texts made of pieces that mean something to the reader or to TOML: no order of them may confuse it.
#[test]
fn shuffled_pieces() {
    let mut pieces: Vec<&str> = MINIMAL.split_inclusive(['\n', '\'', ' ', '.']).collect();
    pieces.extend([
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ",",
        ".",
        "\"",
        "\"\"\"",
        "'''",
        "\n",
        "\r\n",
        "#",
        "é",
        "\u{feff}",
        "\u{0}",
        "nan",
        "1979-05-27",
        "0x",
        "1e999",
    ]);
    pieces.extend([
        "upstream",
        "policy",
        "servers",
        "config = ",
        "keepalive.",
        "[policy.a]\n",
        "[upstream.app.servers]\n",
        "true",
        "\\u",
        "\t",
    ]);
    // A linear congruential generator: the same texts every time.
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..2_000 {
        let length = random(60);
        let text: String = (0..length).map(|_| pieces[random(pieces.len())]).collect();
        if let Err(error) = parse(&text) {
            assert!(
                error.count() > 0 && error.to_string().starts_with("error: "),
                "{text:?}"
            );
        }
    }
}

/// Nesting that would exhaust the stack of a reader that follows it blindly.
#[test]
fn nested_deeply() {
    let dotted = vec!["a"; 79].join(".");
    let tables = format!(
        "x = {}1{}\n",
        format!("{{ {dotted} = ").repeat(79),
        " }".repeat(79)
    );
    let texts = [
        tables.clone(),
        format!("{MINIMAL}[policy.mine]\nfile = 'a'\nconfig.{tables}"),
        format!("[{dotted}]\n{tables}{tables}"),
        "[".repeat(100_000),
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a=".repeat(100_000)),
        format!("{} = 1", vec!["a"; 100_000].join(".")),
    ];
    for text in texts {
        assert!(parse(&text).unwrap_err().to_string().starts_with("error: "));
    }
}

#[test]
fn proxy_arguments() {
    let arguments = |to: &[&str]| to.iter().map(|to| (*to).to_owned()).collect::<Vec<_>>();
    let config = Config::for_proxy(
        ":8080",
        &arguments(&["127.0.0.1:3000, :3001", "app:80"]),
        None,
    )
    .unwrap();
    let addresses: Vec<_> = config.upstreams[0]
        .servers
        .iter()
        .map(|server| server.address.as_str())
        .collect();
    assert_eq!(addresses, ["127.0.0.1:3000", "127.0.0.1:3001", "app:80"]);
    assert_eq!(config.policies, [Policy::built_in("round-robin").unwrap()]);
    assert_eq!(config.listeners[0].address, "0.0.0.0:8080".parse().unwrap());
    assert_eq!(config.routes, [Route::new(HostPattern::Any, "/", 0)]);

    let policy = |name| {
        Config::for_proxy(":8080", &arguments(&[":3000"]), Some(name))
            .map(|config| config.policies[0].clone())
    };
    assert_eq!(
        policy("rotation").unwrap(),
        Policy::built_in("rotation").unwrap()
    );
    for (argument, name) in [
        ("sticky.wasm", "sticky"),
        ("./My Policy", "my_policy"),
        ("a/least-conn.wasm", "file-least-conn"),
        ("/", "file-"),
    ] {
        assert_eq!(
            policy(argument).unwrap(),
            Policy::new(name, PolicySource::File(argument.into()))
        );
    }
    let shown = policy("least_conn").unwrap_err().to_string();
    assert!(shown.contains("did you mean least-conn?"), "{shown}");

    let error = Config::for_proxy(
        "8080",
        &arguments(&["x", ":3000", "127.0.0.1:3000", ""]),
        Some("fair"),
    )
    .unwrap_err();
    let expected = "\
error: --from \"8080\" is not an address to listen on: no `:`
 |
 = help: write \":8080\"";
    assert!(error.to_string().starts_with(expected), "{error}");
    assert_eq!(error.count(), 5, "{error}");
    assert!(Config::for_proxy(":8080", &[], None).is_err());
}
