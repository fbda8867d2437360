//! What a policy may ask the compiler to do, counted before it starts: nothing stops it once it has.

use wasmparser::{Parser, Payload};

use super::description;

/// A policy is some ten to hundred kilobytes; compiling more than this is not a thing to do beside traffic.
pub(super) const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Functions, and whatever else has code made for it. A policy has some hundred.
const FUNCTIONS_MAX: u64 = 50_000;

/// Of one function; a large one of a policy has some kilobytes. The time to compile it grows faster than its size.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Modules and components within a component. One made of a module has three.
const PARTS_MAX: u64 = 100;

/// Types of components and instances, which nest: whoever reads them recurses, with some kilobytes of stack for each
/// level and no end to it. A policy has some thirty.
const NESTING_TYPES_MAX: usize = 1_000;

/// What there is too much of. That the rest is well-formed is for the compiler to say.
pub(super) fn check(wasm: &[u8]) -> Result<(), String> {
    if wasm.len() as u64 > BYTES_MAX {
        return Err(too_long(wasm.len() as u64));
    }
    let mut functions = 0;
    let mut parts = 0;
    let mut nesting = 0;
    for payload in Parser::new(0).parse_all(wasm).map_while(Result::ok) {
        match payload {
            // Each makes for a function of its own: to call one of that type, or to cross a boundary.
            Payload::TypeSection(section) => functions += u64::from(section.count()),
            Payload::ImportSection(section) => functions += u64::from(section.count()),
            Payload::FunctionSection(section) => functions += u64::from(section.count()),
            Payload::ComponentCanonicalSection(section) => functions += u64::from(section.count()),
            Payload::ComponentTypeSection(section) => {
                nesting += nesting_types(wasm.get(section.range()).unwrap_or_default());
            }
            Payload::CustomSection(section) if section.name().starts_with(description::SECTION) => {
                nesting += nesting_types(section.data());
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => parts += 1,
            Payload::CodeSectionEntry(body) if body.range().len() > BODY_BYTES_MAX => {
                return Err(format!(
                    "has a function of {} bytes; {BODY_BYTES_MAX} are allowed",
                    body.range().len()
                ));
            }
            _ => {}
        }
        if functions > FUNCTIONS_MAX {
            return Err(format!(
                "has {functions} functions or more, with their types; {FUNCTIONS_MAX} are allowed"
            ));
        }
        if nesting > NESTING_TYPES_MAX {
            return Err(format!(
                "describes types within types; {NESTING_TYPES_MAX} are allowed"
            ));
        }
        if parts > PARTS_MAX {
            return Err(format!("has more than {PARTS_MAX} modules in it"));
        }
    }
    Ok(())
}

/// At most so many types of components and instances are in there: each begins with one of two bytes, which elsewhere
/// are seldom. To count them as what they are would be to read them.
fn nesting_types(types: &[u8]) -> usize {
    let begins = |byte: &&u8| matches!(**byte, 0x41 | 0x42);
    types.iter().filter(begins).count()
}

/// The same for a file that nobody needs to read first.
pub(super) fn too_long(bytes: u64) -> String {
    format!("has {bytes} bytes; {BYTES_MAX} are allowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A section of a core module.
    fn section(id: u8, content: &[u8]) -> Vec<u8> {
        [&[id][..], &number(content.len()), content].concat()
    }

    /// LEB128.
    fn number(mut value: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let low = u8::try_from(value & 0x7f).unwrap();
            value >>= 7;
            bytes.push(if value == 0 { low } else { low | 0x80 });
            if value == 0 {
                return bytes;
            }
        }
    }

    fn module(sections: &[Vec<u8>]) -> Vec<u8> {
        [b"\0asm\x01\0\0\0".to_vec(), sections.concat()].concat()
    }

    /// A module of so many functions without parameters or results.
    fn functions(count: usize) -> Vec<u8> {
        let counted = |entry: &[u8]| [number(count), entry.repeat(count)].concat();
        module(&[
            section(1, &[1, 0x60, 0, 0]),
            section(3, &counted(&[0])),
            section(10, &counted(&[2, 0, 0x0b])),
        ])
    }

    /// A component in a component in a component, and so on.
    fn nested(levels: usize) -> Vec<u8> {
        let mut component = Vec::new();
        for _ in 0..levels {
            component = [b"\0asm\x0d\0\x01\0", &section(4, &component)[..]].concat();
        }
        component
    }

    #[test]
    fn what_policies_have_is_allowed() {
        assert_eq!(check(&functions(10_000)), Ok(()));
        for name in crate::config::BUILT_IN {
            assert_eq!(check(crate::built_in::policy(name).unwrap()), Ok(()));
        }
    }

    #[test]
    fn a_million_functions_are_refused_at_once() {
        let mut million = functions(1_000_000);
        let refused = check(&million).unwrap_err();
        assert!(refused.contains("1000001 functions"), "{refused}");
        million.resize(5_000_000, 0);
        let refused = check(&million).unwrap_err();
        assert_eq!(refused, "has 5000000 bytes; 4194304 are allowed");
        // The count alone is enough, whether it is true or not.
        let lie = module(&[section(3, &number(0xffff_ffff))]);
        assert!(check(&lie).is_err());
    }

    #[test]
    fn types_and_imports_have_code_made_for_them_too() {
        let types = [number(60_000), [0x60, 0, 0].repeat(60_000)].concat();
        assert!(check(&module(&[section(1, &types)])).is_err());
        let imports = [number(60_000), b"\x01a\x01b\0\0".repeat(60_000)].concat();
        assert!(check(&module(&[section(2, &imports)])).is_err());
    }

    #[test]
    fn a_function_has_a_size() {
        let body = |bytes: usize| {
            let body = [&[0][..], &vec![1; bytes], &[0x0b]].concat();
            let code = [vec![1], number(body.len()), body].concat();
            module(&[
                section(1, &[1, 0x60, 0, 0]),
                section(3, &[1, 0]),
                section(10, &code),
            ])
        };
        assert_eq!(check(&body(BODY_BYTES_MAX / 2)), Ok(()));
        let refused = check(&body(BODY_BYTES_MAX)).unwrap_err();
        assert!(refused.starts_with("has a function of"), "{refused}");
    }

    #[test]
    fn types_in_types_have_an_end() {
        let component = |levels: usize| {
            let types = [&[1][..], &[0x42, 1, 1].repeat(levels), &[0x42, 0]].concat();
            [b"\0asm\x0d\0\x01\0", &section(7, &types)[..]].concat()
        };
        let described = |levels: usize| {
            let custom = [&b"\x0fcomponent-type:"[..], &component(levels)].concat();
            module(&[section(0, &custom)])
        };
        for bytes in [component(900), described(900)] {
            assert_eq!(check(&bytes), Ok(()));
        }
        for bytes in [component(1_000), described(1_000), component(1_300_000)] {
            let refused = check(&bytes).unwrap_err();
            assert!(refused.starts_with("describes types within"), "{refused}");
        }
    }

    #[test]
    fn components_in_components_have_an_end() {
        assert_eq!(check(&nested(50)), Ok(()));
        assert!(check(&nested(1000)).is_err());
    }

    #[test]
    fn what_is_no_wasm_is_for_others_to_say() {
        assert_eq!(check(b""), Ok(()));
        assert_eq!(check(b"not wasm"), Ok(()));
        assert_eq!(check(&functions(10)[..20]), Ok(()));
    }
}
