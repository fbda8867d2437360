//! The token that callers over TCP show: a secret in a file.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Characters that cannot be guessed by trying.
const CHARACTERS_MIN: usize = 16;
/// Bytes of a file that is a token's, and of no other.
const FILE_BYTES_MAX: u64 = 4096;
/// What others than the owner and the group may do with a file.
const OTHERS: u32 = 0o007;

/// A secret. It is not printed.
#[derive(Clone)]
pub(crate) struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// Why a token cannot be used.
#[derive(Debug)]
pub struct TokenError {
    file: PathBuf,
    problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl std::fmt::Display for TokenError {
    /// What is wrong, without the remedy.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "token file {}: {}", self.file.display(), self.problem)
    }
}

impl std::error::Error for TokenError {}

impl Token {
    /// Without the white space around it.
    pub(crate) fn parse(text: &str) -> Result<Token, &'static str> {
        let token = text.trim();
        if token.len() < CHARACTERS_MIN {
            return Err("is shorter than 16 characters");
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("has characters that cannot stand in a header field");
        }
        Ok(Token(token.to_owned()))
    }

    /// Takes as long for a good guess as for a bad one of the same length.
    pub(crate) fn is(&self, given: &[u8]) -> bool {
        let differing = self
            .0
            .bytes()
            .zip(given)
            .fold(0, |differing, (ours, theirs)| {
                black_box(differing | (ours ^ theirs))
            });
        self.0.len() == given.len() && differing == 0
    }

    /// What a caller sends as `Authorization`.
    pub(crate) fn credentials(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

/// Reads a token that nobody else can read.
pub(crate) fn read(path: &Path) -> Result<Token, TokenError> {
    let refused = |problem: String, remedy: &str| TokenError {
        file: path.to_owned(),
        problem,
        remedy: remedy.to_owned(),
    };
    let (text, mode) = read_file(path).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => {
                "make one, for example: (umask 077; openssl rand -hex 32 > FILE)"
            }
            io::ErrorKind::PermissionDenied => "let the user that runs waypost read it",
            _ => "name a file with one line of text in it",
        };
        refused(format!("cannot be read: {error}"), remedy)
    })?;
    if mode & OTHERS != 0 {
        let help = format!("take it away from them: chmod o= {}", path.display());
        return Err(refused(
            "is open to every user of this machine".to_owned(),
            &help,
        ));
    }
    Token::parse(&text).map_err(|problem| {
        refused(
            problem.to_owned(),
            "use at least 16 letters and digits, such as those of: openssl rand -hex 32",
        )
    })
}

/// The content, and the permissions of the very file that it was read from.
fn read_file(path: &Path) -> io::Result<(String, u32)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok((text, mode))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_the_same_bytes_are_the_token() {
        let token = Token::parse(" 0123456789abcdef\n").unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for wrong in [
            "",
            "0",
            "0123456789abcde",
            "0123456789abcdeF",
            "0123456789abcdef0",
        ] {
            assert!(!token.is(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn files_that_are_no_secret_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let problem = |text: &str, mode| {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            read(&file).map_err(|error| error.problem).err()
        };
        assert_eq!(problem("0123456789abcdef\n", 0o600), None);
        assert_eq!(problem("0123456789abcdef\n", 0o640), None);
        let open = Some("is open to every user of this machine".to_owned());
        assert_eq!(problem("0123456789abcdef\n", 0o604), open);
        assert_eq!(problem("0123456789abcdef\n", 0o602), open);
        let short = Some("is shorter than 16 characters".to_owned());
        assert_eq!(problem("  0123456789abcde  ", 0o600), short);
        assert_eq!(problem("", 0o600), short);
        assert!(problem("0123456789 abcdef", 0o600).is_some());
        assert!(problem("0123456789abcdéf", 0o600).is_some());
        assert!(read(directory.path()).is_err());
        let missing = read(&directory.path().join("none")).unwrap_err();
        assert!(missing.remedy.contains("openssl rand"), "{missing:?}");
    }
}
