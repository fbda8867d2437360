//! Where a new policy's crate finds the SDK, and how it names the place.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::super::failure::Failure;

/// The crate `waypost-plugin` on this machine, and what lies around it.
#[derive(Debug)]
pub(super) struct Sdk {
    /// Its directory.
    pub(super) plugin: PathBuf,
    /// The crate `waypost-conformance`, where the repository has it.
    pub(super) conformance: Option<PathBuf>,
    /// The versions of dependencies that it was tried with.
    pub(super) lock: Option<PathBuf>,
}

/// The one that this program was built from.
const BUILT_FROM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugin-sdk");

const NAME_IT: &str = "name the directory of the Waypost repository with --sdk PATH";

impl Sdk {
    /// What `given` says: the repository or the crate within it; else where this program was built from.
    pub(super) fn find(given: Option<&Path>) -> Result<Sdk, Failure> {
        let Some(given) = given else {
            let missing =
                "the waypost-plugin crate that this program was built with is not there any more";
            return Sdk::at(Path::new(BUILT_FROM))
                .ok_or_else(|| Failure::runtime(missing, Some(NAME_IT)));
        };
        let found = Sdk::at(given).or_else(|| Sdk::at(&given.join("plugin-sdk")));
        found.ok_or_else(|| {
            let title = format!(
                "--sdk {}: there is no waypost-plugin crate",
                given.display()
            );
            Failure::usage(title, Some(NAME_IT))
        })
    }

    fn at(directory: &Path) -> Option<Sdk> {
        let plugin = crate_at(directory, "waypost-plugin")?;
        let repository = plugin.parent();
        let lock = repository.map(|repository| repository.join("Cargo.lock"));
        Some(Sdk {
            conformance: repository.and_then(|repository| {
                crate_at(&repository.join("tests/conformance"), "waypost-conformance")
            }),
            lock: lock.filter(|lock| lock.is_file()),
            plugin,
        })
    }

    /// How a crate in `directory` best names `target`, a directory of the SDK: relative where the two lie side by side
    /// and so may move together.
    pub(super) fn path_from(&self, directory: &Path, target: &Path) -> PathBuf {
        let neighbourhood = self.plugin.parent().and_then(Path::parent);
        match neighbourhood {
            Some(common) if common.parent().is_some() => {
                relative(common, directory, target).unwrap_or_else(|| target.to_owned())
            }
            _ => target.to_owned(),
        }
    }
}

/// The directory in full, if it has a crate of that name.
fn crate_at(directory: &Path, name: &str) -> Option<PathBuf> {
    let manifest = fs::read_to_string(directory.join("Cargo.toml")).ok()?;
    let manifest: toml::Table = manifest.parse().ok()?;
    let found = manifest.get("package")?.get("name")?.as_str()?;
    (found == name)
        .then(|| directory.canonicalize().ok())
        .flatten()
}

/// The way from one to the other, where both are in `common` and the first is not far down in it.
fn relative(common: &Path, from: &Path, to: &Path) -> Option<PathBuf> {
    const DEPTH_MAX: usize = 3;
    let shared: PathBuf = from
        .components()
        .zip(to.components())
        .take_while(|(one, other)| one == other)
        .map(|(component, _)| component)
        .collect();
    let up = from.strip_prefix(&shared).ok()?.components().count();
    if !shared.starts_with(common) || up > DEPTH_MAX {
        return None;
    }
    let down = to.strip_prefix(&shared).ok()?.components();
    Some(
        std::iter::repeat_n(Component::ParentDir, up)
            .chain(down)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_named_by_a_relative_path() {
        let path_from = |plugin: &str, directory: &str| {
            let sdk = Sdk {
                plugin: plugin.into(),
                conformance: None,
                lock: None,
            };
            let path = sdk.path_from(Path::new(directory), &sdk.plugin);
            path.to_str().unwrap().to_owned()
        };
        let sdk = "/home/me/waypost/plugin-sdk";
        for (directory, path) in [
            ("/home/me/sticky", "../waypost/plugin-sdk"),
            ("/home/me/policies/sticky", "../../waypost/plugin-sdk"),
            ("/home/me/waypost/mine/sticky", "../../plugin-sdk"),
            ("/home/me/a/b/c/sticky", sdk),
            ("/home/you/sticky", sdk),
            ("/tmp/sticky", sdk),
        ] {
            assert_eq!(path_from(sdk, directory), path, "{directory}");
        }
        // Side by side in the root is nothing to go by.
        assert_eq!(
            path_from("/waypost/plugin-sdk", "/tmp/sticky"),
            "/waypost/plugin-sdk"
        );
    }

    #[test]
    fn the_sdk_is_found_by_its_name() {
        let sdk = Sdk::find(None).unwrap();
        assert!(sdk.plugin.ends_with("plugin-sdk"));
        assert!(sdk.lock.is_some());
        let repository = sdk.plugin.parent().unwrap();
        assert_eq!(Sdk::find(Some(repository)).unwrap().plugin, sdk.plugin);
        assert_eq!(Sdk::find(Some(&sdk.plugin)).unwrap().plugin, sdk.plugin);
        assert!(Sdk::find(Some(&repository.join("host"))).is_err());
        assert!(Sdk::find(Some(Path::new("/nowhere"))).is_err());
    }
}
