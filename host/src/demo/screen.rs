//! Where the demo prints: a terminal, on which each table takes the place of the last, or anything else.

use std::fmt::Write as _;
use std::io::{self, Write};

/// Back to the first column, this many lines up.
fn up(lines: usize) -> String {
    format!("\x1b[{lines}F")
}
/// Whatever is behind the cursor on its line goes.
const CLEAR_LINE: &str = "\x1b[K";
/// Whatever is below the cursor goes.
const CLEAR_BELOW: &str = "\x1b[J";
/// Lines that are too long are cut: wrapped ones would make the number of lines wrong.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// Standard output, as far as the demo is concerned.
pub(super) struct Screen<W> {
    out: W,
    live: bool,
    /// Lines of the table that stands just above the cursor.
    drawn: usize,
}

impl<W: Write> Screen<W> {
    pub(super) fn new(out: W, live: bool) -> Screen<W> {
        Screen {
            out,
            live,
            drawn: 0,
        }
    }

    /// Whether tables move.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// Prints text that stays.
    pub(super) fn print(&mut self, text: &str) -> io::Result<()> {
        self.drawn = 0;
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Prints the last words, set off from the table before them.
    pub(super) fn finish(&mut self, text: &str) -> io::Result<()> {
        let space = if self.live { "\n" } else { "" };
        self.print(&format!("{space}{text}"))
    }

    /// Prints a table, on a terminal in place of the last one.
    pub(super) fn draw(&mut self, table: &str) -> io::Result<()> {
        let frame = if self.live {
            self.frame(table)
        } else {
            format!("{table}\n")
        };
        self.drawn = table.lines().count();
        // In one piece: nobody sees half a table.
        self.out.write_all(frame.as_bytes())?;
        self.out.flush()
    }

    fn frame(&self, table: &str) -> String {
        let mut frame = NO_WRAP.to_owned();
        if self.drawn > 0 {
            frame += &up(self.drawn);
        }
        for line in table.lines() {
            // Writing to a string cannot fail.
            let _ = writeln!(frame, "{line}{CLEAR_LINE}");
        }
        frame + CLEAR_BELOW + WRAP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(live: bool) -> String {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, live);
        screen.print("hello\n").unwrap();
        screen.draw("a\nb\n").unwrap();
        screen.draw("c\n").unwrap();
        screen.draw("d\n").unwrap();
        screen.finish("bye\n").unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_terminal_shows_one_table() {
        let expected = "hello\n\
            \x1b[?7la\x1b[K\nb\x1b[K\n\x1b[J\x1b[?7h\
            \x1b[?7l\x1b[2Fc\x1b[K\n\x1b[J\x1b[?7h\
            \x1b[?7l\x1b[1Fd\x1b[K\n\x1b[J\x1b[?7h\
            \nbye\n";
        assert_eq!(shown(true), expected);
    }

    #[test]
    fn elsewhere_every_table_stays() {
        assert_eq!(shown(false), "hello\na\nb\n\nc\n\nd\n\nbye\n");
    }
}
