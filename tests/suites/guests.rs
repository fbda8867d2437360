//! The policies of `../guests`, built for WebAssembly, and modules that no compiler would make.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use waypost_plugin_build::Builder;

/// A policy of `../guests` as a core module. The first call builds all of them, which takes half a minute where nothing is
/// cached.
pub(crate) fn guest(name: &str) -> &'static Path {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(build);
    built
        .get(name)
        .unwrap_or_else(|| panic!("no guest is called {name}; there are {:?}", built.keys()))
}

/// One call of cargo for all, since it takes longer to start than to build one of them.
fn build() -> BTreeMap<String, PathBuf> {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests");
    let crates: Vec<PathBuf> = std::fs::read_dir(&guests)
        .expect("a directory of guests")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("Cargo.toml").is_file())
        .collect();
    let modules = Builder::new(target_dir())
        .modules(&crates)
        .unwrap_or_else(|error| panic!("the guests cannot be built: {error}"));
    let name = |path: &PathBuf| {
        let name = path.file_name().expect("a crate's directory");
        name.to_string_lossy().into_owned()
    };
    crates.iter().map(name).zip(modules).collect()
}

/// Where the host's build script has its own policies built, so that the standard library is compiled only once.
pub(crate) fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").is_file())
        .expect("cargo marks its target directory")
        .join("waypost-wasm")
}

/// The bytes of a guest, wrapped into a component by the builder instead of by the host.
pub(crate) fn component(name: &str) -> Vec<u8> {
    let module = std::fs::read(guest(name)).expect("a module that was just built");
    waypost_plugin_build::componentize(&module).unwrap_or_else(|error| panic!("{error}"))
}

/// Bytes of a module or component from its text.
pub(crate) fn assemble(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// A policy that comes with the binary, as its build script has just built it.
pub(crate) fn built_in(name: &str) -> PathBuf {
    let file = format!("{}.wasm", name.replace('-', "_"));
    let built = target_dir().join(waypost_plugin_build::TARGET);
    built.join("release").join(file)
}

/// A core module that does the same and has other bytes: a custom section with `mark` in it is put behind the others.
pub(crate) fn remade(module: &[u8], mark: u32) -> Vec<u8> {
    const NAME: &[u8] = b"mark";
    let content = [&[NAME.len() as u8], NAME, &mark.to_le_bytes()].concat();
    [module, &[0, content.len() as u8], &content].concat()
}
