//! The Unix socket: made so that nobody else can ever connect, and removed at the end.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::AdminError;

/// Only the user that runs the server.
const MODE: u32 = 0o600;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;
/// For somebody who listens to take a connection.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A socket's file, for as long as it is ours. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// Tells one file from another at the same path: device, inode, and when it was made, as inodes are used again.
type Identity = (u64, u64, (i64, i64));

fn identity(file: &Metadata) -> Identity {
    // Nothing is ever written to a socket's file.
    let made = (file.mtime(), file.mtime_nsec());
    (file.dev(), file.ino(), made)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have put theirs in its place.
        let ours = |file: Metadata| identity(&file) == self.identity;
        if self.path.symlink_metadata().is_ok_and(ours) {
            // If it cannot be removed, the next server replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at a path, in place of a server that has died.
pub(super) async fn bind(path: &Path) -> Result<(UnixListener, SocketFile), AdminError> {
    check_directory(path)?;
    make_room(path).await?;
    listen(path).map_err(|error| {
        let remedy = (error.kind() == io::ErrorKind::PermissionDenied)
            .then_some("let the user that runs waypost write to the directory");
        refused(path, &error.to_string(), remedy)
    })
}

/// A directory that is not there is a mistake in the path, or one in how the service is set up.
pub(super) fn check_directory(path: &Path) -> Result<(), AdminError> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let reason = match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => "not a directory".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(AdminError::Directory {
        path: path.to_owned(),
        problem: format!("its directory {}: {reason}", directory.display()),
    })
}

/// Removes a socket that nobody listens at. Nothing else is ever removed.
async fn make_room(path: &Path) -> Result<(), AdminError> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(path, &error.to_string(), None)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let remedy = "choose a path where there is nothing, or remove it";
            return Err(refused(
                path,
                "there is a file that is no socket",
                Some(remedy),
            ));
        }
        Ok(_) => {}
    }
    match timeout(PROBE_TIMEOUT, UnixStream::connect(path)).await {
        // Nobody has it open any more: a server was killed.
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| refused(path, &error.to_string(), None))
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            let remedy = "it belongs to another user; choose another path";
            Err(refused(path, &error.to_string(), Some(remedy)))
        }
        // Also one that is too busy to answer.
        _ => {
            let remedy = "stop the server that uses it, or choose another path";
            Err(refused(path, "another server listens there", Some(remedy)))
        }
    }
}

/// Nobody can connect until the permissions are set: before it listens, a socket refuses.
fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(&path.symlink_metadata()?),
    };
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    Ok((UnixListener::from_std(socket.into())?, file))
}

fn refused(path: &Path, problem: &str, remedy: Option<&'static str>) -> AdminError {
    AdminError::Socket {
        path: path.to_owned(),
        problem: problem.to_owned(),
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn problem(path: &Path) -> Option<String> {
        match bind(path).await {
            Err(AdminError::Directory { problem, .. } | AdminError::Socket { problem, .. }) => {
                Some(problem)
            }
            _ => None,
        }
    }

    #[tokio::test]
    async fn a_socket_is_private_and_goes_with_its_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let (_listener, file) = bind(&path).await.unwrap();
        let mode = path.symlink_metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(UnixStream::connect(&path).await.is_ok());
        let expected = Some("another server listens there".to_owned());
        assert_eq!(problem(&path).await, expected);
        drop(file);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_dead_server_left_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        // The file stays where nobody removes it.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.symlink_metadata().is_ok());
        assert!(bind(&path).await.is_ok());
    }

    #[tokio::test]
    async fn what_somebody_else_put_there_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let (_listener, first) = bind(&path).await.unwrap();
        let other = directory.path().join("other.sock");
        let (_listener, _second) = bind(&other).await.unwrap();
        fs::rename(&other, &path).unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn nothing_else_is_touched() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("notes.txt");
        fs::write(&file, "kept").unwrap();
        assert!(problem(&file).await.is_some());
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(problem(&link).await.is_some());
        assert!(link.symlink_metadata().is_ok());
        let below = problem(&directory.path().join("none/admin.sock")).await;
        assert!(below.unwrap().contains("No such file"));
        assert!(problem(&file.join("admin.sock")).await.is_some());
    }
}
