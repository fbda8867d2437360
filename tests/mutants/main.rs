//! Damaged and made-up modules, by the thousand: each gets an answer in time, and none takes anything down.
//!
//! `WAYPOST_MUTANTS` says how many:
//! `WAYPOST_MUTANTS=100000 cargo test --release -p waypost-tests --test mutants -- --nocapture`
//!
//! A binary of its own, because it counts what is allocated.

#[path = "../suites/guests.rs"]
#[allow(dead_code, reason = "the suites use more of it")]
mod guests;

use std::alloc::System;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cap::Cap;
use wasmparser::{ExternalKind, Parser, Payload, TypeRef, ValType};
use waypost::inspect::Inspector;

use crate::guests::{component, guest};

/// What the system says is in memory also depends on what the compiler once needed at its worst.
#[global_allocator]
static ALLOCATED: Cap<System> = Cap::new(System, usize::MAX);

/// One test at a time, so that what is allocated belongs to it.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many by default: some seconds' worth in a debug build.
const MUTANTS: u64 = 2_000;
/// What may stay allocated after the last one beyond what was after the first tenth.
const GROWTH_MAX: usize = 1024 * 1024;
/// Far above what any takes, on a machine that is busy with other tests.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Policies of different shapes, each as a core module and as a component: as they are, and much smaller, so that there
/// is time for many mutants.
const SEEDS: [&str; 3] = ["first-healthy", "rewrites-responses", "counts-outcomes"];

#[test]
fn truncated_anywhere_they_get_an_answer() {
    let _turn = alone();
    let inspector = Inspector::new().expect("an inspector");
    let mut answers = Answers::default();
    for whole in [module("first-healthy"), component("first-healthy")] {
        assert!(inspector.inspect(&whole).is_ok());
        for end in (0..whole.len()).step_by(256) {
            answers.note("truncated", &inspector, &whole[..end]);
        }
    }
    // Any cut is noticed but one between sections, behind which there is nothing that matters.
    let accepted = answers.accepted;
    assert!(accepted <= 2, "{accepted} truncated modules are accepted");
}

#[test]
fn each_gets_an_answer() {
    let _turn = alone();
    let count = std::env::var("WAYPOST_MUTANTS").map_or(MUTANTS, |text| {
        text.parse().expect("WAYPOST_MUTANTS is a number")
    });
    let whole = Seeds::new(SEEDS.iter().map(|name| module(name)).collect());
    let lean = Seeds::new(whole.modules.iter().map(Module::lean).collect());
    let inspector = Inspector::new().expect("an inspector");
    let mut answers = Answers::default();
    let mut memory = Vec::new();
    for number in 0..count {
        if number.is_multiple_of((count / 10).max(1)) {
            memory.push([ALLOCATED.allocated(), resident()]);
        }
        // By its number alone, any of them can be made again.
        let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let seeds = match random.below(8) {
            0 => &whole,
            _ => &lean,
        };
        let (strategy, mutant) = seeds.mutant(&mut random);
        answers.note(strategy, &inspector, &mutant);
    }
    memory.push([ALLOCATED.allocated(), resident()]);
    println!("{count} mutants; allocated and resident at each tenth, KiB:");
    for [allocated, resident] in &memory {
        println!("{:>12} {:>8}", allocated / 1024, resident / 1024);
    }
    println!("{answers}");
    assert!(
        answers.kinds.len() > 10,
        "they all fail for the same few reasons"
    );
    for seed in whole.all.iter().chain(&lean.all) {
        let good = inspector.inspect(seed);
        assert!(good.is_ok(), "a good one is not taken any more: {good:?}");
    }
    if let ([_, warm, ..], [.., last]) = (&memory[..], &memory[..]) {
        assert!(last[0] <= warm[0] + GROWTH_MAX, "{memory:?}");
    }
}

/// The encoder would follow packages that refer to each other until the stack ends.
#[test]
fn descriptions_that_lead_in_circles_are_refused() {
    let _turn = alone();
    let inspector = Inspector::new().expect("an inspector");
    let text = b"waypost:policy/response@";
    let mut module = module("first-healthy");
    let places: Vec<usize> = (0..module.len() - text.len())
        .filter(|at| module[*at..].starts_with(text))
        .collect();
    for at in places {
        module[at] = b'W';
        let refused = inspector.inspect(&module).expect_err("another package");
        assert!(
            refused.problem.contains("Waypost:policy/response"),
            "{refused}"
        );
        module[at] = b'w';
    }
}

/// Who reads types recurses over them.
#[test]
fn types_that_nest_deeply_are_refused() {
    let _turn = alone();
    const MODULE: &[u8] = b"\0asm\x01\0\0\0";
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    let section =
        |id: u8, content: &[u8]| [&[id], &leb(content.len() as u64)[..], content].concat();
    let inspector = Inspector::new().expect("an inspector");
    for levels in [90, 950, 21_000, 1_300_000] {
        for open in [[0x41, 1, 1], [0x42, 1, 1]] {
            let types = [&[1][..], &open.repeat(levels), &[0x41, 0]].concat();
            let component = [COMPONENT, &section(7, &types)].concat();
            let custom = [&b"\x0ecomponent-type"[..], &component].concat();
            let module = [MODULE, &section(0, &custom)].concat();
            for bytes in [component, module] {
                assert!(inspector.inspect(&bytes).is_err());
            }
        }
    }
}

fn module(name: &str) -> Vec<u8> {
    std::fs::read(guest(name)).expect("a module that was just built")
}

/// Bytes of this process in memory; 0 where the system does not say.
fn resident() -> usize {
    const PAGE: usize = 4096;
    let numbers = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = numbers
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * PAGE
}

// === what becomes of them ===

#[derive(Default)]
struct Answers {
    accepted: u64,
    /// Refusals, by how they begin.
    kinds: BTreeMap<String, u64>,
    /// By strategy: how many there were, and how many of them could be compiled.
    strategies: BTreeMap<&'static str, (u64, u64)>,
    slowest: Duration,
    total: Duration,
}

impl Answers {
    fn note(&mut self, strategy: &'static str, inspector: &Inspector, bytes: &[u8]) {
        let start = Instant::now();
        let answer = inspector.inspect(bytes);
        let elapsed = start.elapsed();
        assert!(elapsed < TIME_MAX, "{strategy} took {elapsed:?}");
        self.slowest = self.slowest.max(elapsed);
        self.total += elapsed;
        let (made, compiled) = self.strategies.entry(strategy).or_default();
        *made += 1;
        match answer {
            Ok(_) => {
                self.accepted += 1;
                *compiled += 1;
            }
            Err(refused) => {
                let kind = kind(&refused.problem);
                *compiled += u64::from(kind.starts_with("failed"));
                *self.kinds.entry(kind).or_default() += 1;
            }
        }
    }
}

impl std::fmt::Display for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (slowest, total) = (self.slowest, self.total);
        writeln!(
            f,
            "accepted {}; slowest {slowest:.0?}, all {total:.0?}",
            self.accepted
        )?;
        for (strategy, (made, compiled)) in &self.strategies {
            writeln!(f, "{made:>8} {strategy}, of which {compiled} could be run")?;
        }
        let mut kinds: Vec<_> = self.kinds.iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (kind, count) in kinds.iter().take(40) {
            writeln!(f, "{count:>8} {kind}")?;
        }
        Ok(())
    }
}

/// A problem without what differs from one mutant to the next: where it comes from, numbers, and details.
fn kind(problem: &str) -> String {
    let problem = problem.split_once(": ").map_or(problem, |(_, rest)| rest);
    let words = problem.split(' ').take(9);
    let words = words.map(|word| match word.contains(|c: char| c.is_ascii_digit()) {
        true => "N",
        false => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

// === how they are made ===

/// The same numbers every time: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn within(&mut self, range: &Range<usize>) -> usize {
        range.start + self.below(range.len())
    }

    fn byte(&mut self) -> u8 {
        // What is at the edge of something, as often as anything else.
        const EDGES: [u8; 8] = [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xfe, 0xff];
        match self.below(2) {
            0 => EDGES[self.below(EDGES.len())],
            _ => self.next() as u8,
        }
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

struct Seeds {
    all: Vec<Vec<u8>>,
    /// Those of `all` that are core modules.
    modules: Vec<Module>,
}

type Strategy = fn(&Seeds, &mut Random) -> Vec<u8>;

const STRATEGIES: [(&str, Strategy); 12] = [
    ("bits flipped", flip_bits),
    ("bytes replaced", replace_bytes),
    ("bytes inserted", insert_bytes),
    ("bytes deleted", delete_bytes),
    ("truncated", truncate),
    ("sections in another order", shuffle_sections),
    ("a section twice or not at all", repeat_section),
    ("a section of another policy", swap_section),
    ("a wrong length or count", corrupt_length),
    ("a description that is not true", corrupt_description),
    ("other instructions", corrupt_code),
    ("generated functions", generate_functions),
];

impl Seeds {
    fn new(modules: Vec<Vec<u8>>) -> Seeds {
        let component = |module: &Vec<u8>| {
            waypost_plugin_build::componentize(module).unwrap_or_else(|error| panic!("{error}"))
        };
        let components: Vec<Vec<u8>> = modules.iter().map(component).collect();
        Seeds {
            all: modules.iter().cloned().chain(components).collect(),
            modules: modules.into_iter().map(Module::new).collect(),
        }
    }

    fn mutant(&self, random: &mut Random) -> (&'static str, Vec<u8>) {
        let (name, make) = *random.pick(&STRATEGIES);
        (name, make(self, random))
    }

    fn any(&self, random: &mut Random) -> Vec<u8> {
        random.pick(&self.all).clone()
    }
}

fn flip_bits(seeds: &Seeds, random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds.any(random);
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
    }
    bytes
}

fn replace_bytes(seeds: &Seeds, random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds.any(random);
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len());
        bytes[at] = random.byte();
    }
    bytes
}

fn insert_bytes(seeds: &Seeds, random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds.any(random);
    let at = random.below(bytes.len());
    let new: Vec<u8> = (0..=random.below(8)).map(|_| random.byte()).collect();
    bytes.splice(at..at, new);
    bytes
}

fn delete_bytes(seeds: &Seeds, random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds.any(random);
    let at = random.below(bytes.len() - 64);
    let end = at + 1 + random.below(64);
    bytes.drain(at..end);
    bytes
}

fn truncate(seeds: &Seeds, random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds.any(random);
    bytes.truncate(random.below(bytes.len()));
    bytes
}

fn shuffle_sections(seeds: &Seeds, random: &mut Random) -> Vec<u8> {
    let (header, mut sections) = sections(seeds.any(random));
    for _ in 0..=random.below(4) {
        let (a, b) = (random.below(sections.len()), random.below(sections.len()));
        sections.swap(a, b);
    }
    joined(&header, &sections)
}

fn repeat_section(seeds: &Seeds, random: &mut Random) -> Vec<u8> {
    let (header, mut sections) = sections(seeds.any(random));
    let at = random.below(sections.len());
    match random.below(2) {
        0 => drop(sections.remove(at)),
        _ => sections.insert(random.below(sections.len()), sections[at].clone()),
    }
    joined(&header, &sections)
}

fn swap_section(seeds: &Seeds, random: &mut Random) -> Vec<u8> {
    let (header, mut sections_here) = sections(seeds.any(random));
    let (_, sections_there) = sections(seeds.any(random));
    let at = random.below(sections_here.len());
    sections_here[at] = random.pick(&sections_there).clone();
    joined(&header, &sections_here)
}

/// The length of a section, or the number of things that is the first in it.
fn corrupt_length(seeds: &Seeds, random: &mut Random) -> Vec<u8> {
    const NUMBERS: [u64; 8] = [0, 1, 127, 128, 65_536, 0x7fff_ffff, 0xffff_ffff, 1 << 40];
    let (header, mut sections) = sections(seeds.any(random));
    let at = random.below(sections.len());
    let section = &mut sections[at];
    let length = 1..1 + leb_length(&section[1..]);
    let number = length.end..length.end + leb_length(&section[length.end..]);
    let place = random.pick(&[length, number]).clone();
    let value = match random.below(2) {
        0 => *random.pick(&NUMBERS),
        _ => random.next() >> random.below(64),
    };
    section.splice(place, leb(value));
    joined(&header, &sections)
}

/// What the encoder believes of a module: `component-type` says which functions it has, of which types.
fn corrupt_description(seeds: &Seeds, random: &mut Random) -> Vec<u8> {
    let module = random.pick(&seeds.modules);
    let mut bytes = module.bytes.clone();
    let place = random.pick(&module.descriptions);
    for _ in 0..=random.below(4) {
        let at = random.within(place);
        bytes[at] = match random.below(3) {
            0 => bytes[at] ^ (1 << random.below(8)),
            1 => bytes[at].wrapping_add(1),
            _ => random.byte(),
        };
    }
    bytes
}

/// One byte at a time, which is valid more often than one thinks, and then runs.
fn corrupt_code(seeds: &Seeds, random: &mut Random) -> Vec<u8> {
    let module = random.pick(&seeds.modules);
    let mut bytes = module.bytes.clone();
    for _ in 0..=random.below(2) {
        let function = random.pick(&module.functions);
        let at = random.within(&function.body);
        bytes[at] = random.byte();
    }
    bytes
}

/// Functions of the right type that do something else: what they return, how they end and what they use is made up.
fn generate_functions(seeds: &Seeds, random: &mut Random) -> Vec<u8> {
    let module = random.pick(&seeds.modules);
    let mut chosen = vec![false; module.functions.len()];
    for _ in 0..=random.below(20) {
        chosen[random.below(module.functions.len())] = true;
    }
    let mut code = leb(module.functions.len() as u64);
    for (index, function) in module.functions.iter().enumerate() {
        let body = match chosen[index] {
            true => function.generate(random, module.functions.len()),
            false => module.bytes[function.body.clone()].to_vec(),
        };
        code.extend(leb(body.len() as u64));
        code.extend(body);
    }
    let mut bytes = module.bytes.clone();
    bytes.splice(module.code.clone(), [leb(code.len() as u64), code].concat());
    bytes
}

// === what they are made of ===

struct Module {
    bytes: Vec<u8>,
    /// The contents of the sections for the encoder.
    descriptions: Vec<Range<usize>>,
    functions: Vec<Function>,
    /// The functions that are exported, by name, as indices into `functions`.
    exports: Vec<(String, usize)>,
    /// The code section, from its length on.
    code: Range<usize>,
}

struct Function {
    index: u64,
    ty: u64,
    parameters: u64,
    results: Vec<ValType>,
    body: Range<usize>,
}

impl Module {
    fn new(bytes: Vec<u8>) -> Module {
        let mut types = Vec::new();
        let mut imported = 0;
        let mut of_type = Vec::new();
        let mut functions = Vec::new();
        let mut exports = Vec::new();
        let mut descriptions = Vec::new();
        let mut code = 0..0;
        for payload in Parser::new(0).parse_all(&bytes) {
            match payload.expect("a module that was just built") {
                Payload::TypeSection(section) => {
                    let all = section.into_iter_err_on_gc_types();
                    types.extend(all.map(|ty| ty.expect("a function's type")));
                }
                Payload::ImportSection(section) => {
                    let imports = section
                        .into_imports()
                        .map(|import| import.expect("an import"));
                    let functions = imports.filter(|import| matches!(import.ty, TypeRef::Func(_)));
                    imported = functions.count() as u64;
                }
                Payload::FunctionSection(section) => {
                    of_type.extend(section.into_iter().map(|ty| ty.expect("an index") as usize));
                }
                Payload::ExportSection(section) => {
                    let all = section.into_iter().map(|export| export.expect("an export"));
                    let functions = all.filter(|export| export.kind == ExternalKind::Func);
                    exports.extend(functions.map(|export| {
                        let index = u64::from(export.index) - imported;
                        (export.name.to_owned(), index as usize)
                    }));
                }
                Payload::CodeSectionStart { range, .. } => code = range,
                Payload::CodeSectionEntry(body) => {
                    let ty = &types[of_type[functions.len()]];
                    functions.push(Function {
                        index: imported + functions.len() as u64,
                        ty: of_type[functions.len()] as u64,
                        parameters: ty.params().len() as u64,
                        results: ty.results().to_vec(),
                        body: body.range(),
                    });
                }
                Payload::CustomSection(section) if section.name().starts_with("component-type") => {
                    descriptions.push(section.data_offset()..section.range().end);
                }
                _ => {}
            }
        }
        // The length before it, which has as many bytes as it takes.
        let length = (1..=5).find(|length| {
            let start = code.start - length;
            leb_length(&bytes[start..]) == *length
                && leb(code.len() as u64) == bytes[start..code.start]
        });
        code.start -= length.expect("a length");
        assert!(!descriptions.is_empty() && !functions.is_empty());
        Module {
            bytes,
            descriptions,
            functions,
            exports,
            code,
        }
    }

    /// The same policy as far as anybody sees, in some kilobytes: each exported function returns where there are zeros
    /// in memory, which mean nothing at all, or "ok"; `pick` says that no backend is available.
    fn lean(&self) -> Vec<u8> {
        const ZEROS: u8 = 32;
        const UNAVAILABLE: u8 = 8;
        const ROOM: u64 = 1024;
        const END: u8 = 0x0b;
        let counted =
            |entries: Vec<Vec<u8>>| [leb(entries.len() as u64), entries.concat()].concat();
        let text = |text: &str| [&leb(text.len() as u64), text.as_bytes()].concat();
        let section =
            |id: u8, content: Vec<u8>| [vec![id], leb(content.len() as u64), content].concat();
        let (header, whole) = sections(self.bytes.clone());
        let copied = |id: u8| {
            whole
                .iter()
                .filter(move |section| section[0] == id)
                .cloned()
        };
        let exported = || {
            self.exports
                .iter()
                .map(|(_, index)| &self.functions[*index])
        };
        let first = self.functions[0].index;
        let exports = self
            .exports
            .iter()
            .zip(first..)
            .map(|((name, _), index)| [text(name), vec![0], leb(index)].concat());
        let memory = [text("memory"), vec![2, 0]].concat();
        let bodies = self.exports.iter().map(|(name, index)| {
            let pointer = match name.as_str() {
                "cabi_realloc" => leb(ROOM),
                pick if pick.ends_with("#pick") => vec![UNAVAILABLE],
                _ => vec![ZEROS],
            };
            let results = self.functions[*index]
                .results
                .iter()
                .map(|result| match result {
                    ValType::I32 => [&[0x41], &pointer[..]].concat(),
                    ValType::I64 => vec![0x42, 0],
                    other => panic!("{name} returns {other:?}"),
                });
            let body = [vec![0], results.flatten().collect(), vec![END]].concat();
            [leb(body.len() as u64), body].concat()
        });
        let descriptions = copied(0).filter(|section| {
            section
                .windows(14)
                .take(8)
                .any(|part| part == b"component-type")
        });
        let data = vec![0, 0x41, UNAVAILABLE, END, 1, 2];
        let all: Vec<Vec<u8>> = copied(1)
            .chain(copied(2))
            .chain([
                section(
                    3,
                    counted(exported().map(|function| leb(function.ty)).collect()),
                ),
                section(5, vec![1, 0, 17]),
                section(7, counted(exports.chain([memory]).collect())),
                section(10, counted(bodies.collect())),
                section(11, counted(vec![data])),
            ])
            .chain(descriptions)
            .collect();
        joined(&header, &all)
    }
}

impl Function {
    fn generate(&self, random: &mut Random, functions: usize) -> Vec<u8> {
        const UNREACHABLE: u8 = 0;
        const END: u8 = 0x0b;
        // No locals.
        let mut body = vec![0];
        match random.below(8) {
            0 => body.push(UNREACHABLE),
            // loop br 0 end
            1 => body.extend([0x03, 0x40, 0x0c, 0, END]),
            // i32.const -1 memory.grow drop
            2 => body.extend([0x41, 0x7f, 0x40, 0, 0x1a]),
            // i32.const 0 i32.const N i32.const 64K memory.fill
            3 => body.extend([0x41, 0, 0x41, 7, 0x41, 0x80, 0x80, 4, 0xfc, 0x0b, 0]),
            // Itself again, with the same arguments.
            4 => {
                for parameter in 0..self.parameters {
                    body.push(0x20);
                    body.extend(leb(parameter));
                }
                body.push(0x10);
                body.extend(leb(self.index));
                body.extend(self.results.iter().map(|_| 0x1a));
            }
            // A pointer to somewhere: i32.const i32.load drop
            5 => {
                body.push(0x41);
                body.extend(signed(random));
                body.extend([0x28, 2, 0, 0x1a]);
            }
            // Another function, whose type may differ.
            6 => {
                body.push(0x10);
                body.extend(leb(random.below(functions) as u64));
            }
            _ => {}
        }
        for result in &self.results {
            match result {
                ValType::I32 => body.push(0x41),
                ValType::I64 => body.push(0x42),
                ValType::F32 => body.extend([0x43, 0, 0, 0xc0]),
                ValType::F64 => body.extend([0x44, 0, 0, 0, 0, 0, 0, 0xf8]),
                ValType::V128 | ValType::Ref(_) => body.push(UNREACHABLE),
            }
            match result {
                ValType::I32 | ValType::I64 => body.extend(signed(random)),
                ValType::F32 | ValType::F64 => body.push(0x7f),
                ValType::V128 | ValType::Ref(_) => {}
            }
        }
        body.push(END);
        body
    }
}

/// A signed number of up to 28 bits, as instructions have it.
fn signed(random: &mut Random) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..random.below(4)).map(|_| random.byte() | 0x80).collect();
    bytes.push(random.byte() & 0x7f);
    bytes
}

/// What comes before the first section, and the sections with their heads.
fn sections(bytes: Vec<u8>) -> (Vec<u8>, Vec<Vec<u8>>) {
    let header = bytes[..8].to_vec();
    let mut sections = Vec::new();
    let mut at = 8;
    while at < bytes.len() {
        let head = at + 1;
        let end = head + leb_length(&bytes[head..]) + leb_value(&bytes[head..]);
        sections.push(bytes[at..end].to_vec());
        at = end;
    }
    (header, sections)
}

fn joined(header: &[u8], sections: &[Vec<u8>]) -> Vec<u8> {
    [header, &sections.concat()].concat()
}

fn leb(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        bytes.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return bytes;
        }
    }
}

fn leb_length(bytes: &[u8]) -> usize {
    let longer = bytes.iter().take_while(|byte| **byte & 0x80 != 0).count();
    (longer + 1).min(bytes.len())
}

fn leb_value(bytes: &[u8]) -> usize {
    let digits = bytes[..leb_length(bytes)].iter().rev();
    digits.fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f))
}
