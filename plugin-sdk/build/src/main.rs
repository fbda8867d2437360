//! `waypost-plugin-build DIR [-o OUT.wasm]`: the builder as a program.

use std::{env, error::Error, ffi::OsString, fs, path::PathBuf, process::ExitCode};

use waypost_plugin_build::{Builder, componentize};

const USAGE: &str = "usage: waypost-plugin-build DIR [-o OUT.wasm]

Builds the policy in the crate directory DIR and writes it as a component, by default to the current directory under
the name of the crate. Cargo's work goes to CARGO_TARGET_DIR, by default to `target/policy` in DIR.";

fn main() -> ExitCode {
    if env::args_os()
        .skip(1)
        .any(|argument| argument == "-h" || argument == "--help")
    {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let Some(arguments) = Arguments::parse(env::args_os().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            let built = error.downcast_ref::<waypost_plugin_build::Error>();
            if let Some(help) = built.and_then(waypost_plugin_build::Error::help) {
                eprintln!("help: {help}");
            }
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    dir: PathBuf,
    out: Option<PathBuf>,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let (mut dir, mut out) = (None, None);
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("-o") if out.is_none() => out = Some(arguments.next()?.into()),
                Some(option) if option.starts_with('-') => return None,
                _ if dir.is_none() => dir = Some(argument.into()),
                _ => return None,
            }
        }
        Some(Arguments { dir: dir?, out })
    }
}

fn run(Arguments { dir, out }: Arguments) -> Result<(), Box<dyn Error>> {
    let target_dir =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| dir.join("target/policy"), PathBuf::from);
    let module = Builder::new(target_dir).module(&dir)?;
    let component = componentize(&fs::read(&module)?)?;
    let out = match out {
        Some(out) => out,
        None => module
            .file_name()
            .ok_or("cargo made a module without a name")?
            .into(),
    };
    fs::write(&out, &component)?;
    println!("{} ({} bytes)", out.display(), component.len());
    Ok(())
}
