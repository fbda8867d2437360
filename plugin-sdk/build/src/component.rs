//! Wraps a core module into a component and checks that the component is a policy.

use wit_component::{ComponentEncoder, DecodedWasm};

use crate::Error;

/// All that a policy may import is in here, and all that it must export.
const PACKAGE: &str = "waypost:policy/";

/// The interfaces that every policy exports.
const REQUIRED: [&str; 2] = ["waypost:policy/about", "waypost:policy/balance"];

/// Wraps a core module into a component and checks it: valid, imports from the contract only, exports what every
/// policy exports.
///
/// # Errors
///
/// [`Error::Wrap`], [`Error::ForeignImport`] or [`Error::MissingExport`].
pub fn componentize(module: &[u8]) -> Result<Vec<u8>, Error> {
    let wrap = |error| Error::Wrap(format!("{error:#}"));
    let component = ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|mut encoder| encoder.encode());
    let component = component.map_err(wrap)?;
    let DecodedWasm::Component(resolve, world) = wit_component::decode(&component).map_err(wrap)?
    else {
        return Err(Error::Wrap("it describes a WIT package instead".into()));
    };
    let Some(world) = resolve.worlds.get(world) else {
        return Err(Error::Wrap("it describes no world".into()));
    };
    check(
        world.imports.keys().map(|key| resolve.name_world_key(key)),
        world.exports.keys().map(|key| resolve.name_world_key(key)),
    )?;
    Ok(component)
}

fn check(
    mut imports: impl Iterator<Item = String>,
    exports: impl Iterator<Item = String>,
) -> Result<(), Error> {
    if let Some(foreign) = imports.find(|name| !name.starts_with(PACKAGE)) {
        return Err(Error::ForeignImport(foreign));
    }
    let exports: Vec<String> = exports.collect();
    let has = |name: &str| {
        exports
            .iter()
            .any(|export| export.split('@').next() == Some(name))
    };
    match REQUIRED.into_iter().find(|name| !has(name)) {
        Some(missing) => Err(Error::MissingExport(missing)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(imports: &[&str], exports: &[&str]) -> Result<(), String> {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| name.to_string())
                .collect::<Vec<_>>()
        };
        check(names(imports).into_iter(), names(exports).into_iter())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn takes_policies_and_nothing_else() {
        let about = "waypost:policy/about@0.1.0";
        let balance = "waypost:policy/balance@0.1.0";
        assert_eq!(
            checked(&["waypost:policy/host@0.1.0"], &[about, balance]),
            Ok(())
        );
        assert!(
            checked(&["wasi:cli/stdout@0.2.0"], &[about, balance])
                .unwrap_err()
                .contains("wasi:cli/stdout")
        );
        assert!(
            checked(&[], &[balance])
                .unwrap_err()
                .contains("waypost:policy/about")
        );
        assert!(
            checked(&[], &[about])
                .unwrap_err()
                .contains("waypost:policy/balance")
        );
    }

    #[test]
    fn refuses_what_is_not_a_module() {
        assert!(matches!(componentize(b"not wasm"), Err(Error::Wrap(_))));
    }
}
