//! `[admin]`: where a running server takes questions and orders.

use std::path::{Path, PathBuf};

use super::super::diagnostic::Complaint;
use super::super::fields::{Fields, Value};
use super::super::values::string;
use super::super::{Admin, AdminTcp, Listener};
use super::listen_address;

/// Bytes of a Unix socket's path that the system can take: `sun_path` without the byte that ends it.
const SOCKET_PATH_MAX: usize = 107;

/// `listeners` are those for clients, which share no address with this.
pub(super) fn read(mut fields: Fields<'_>, directory: &Path, listeners: &[Listener]) -> Admin {
    let socket = fields.optional("socket", |value| socket(value, directory));
    let tcp = fields
        .take("tcp")
        .and_then(|value| fields.inside(value, "[admin.tcp]", "[admin.tcp]".to_owned()))
        .and_then(|fields| tcp(fields, directory, listeners));
    fields.finish();
    Admin { socket, tcp }
}

fn tcp(mut fields: Fields<'_>, directory: &Path, listeners: &[Listener]) -> Option<AdminTcp> {
    let address = fields.required("address", "address = \"127.0.0.1:9000\"", |value| {
        let address = listen_address(value)?;
        // Port 0 is another one each time.
        let taken = listeners.iter().any(|listener| listener.address == address);
        if taken && address.port() != 0 {
            return Err(Complaint::new("is the address of a [[listen]]")
                .label("clients connect here")
                .help("choose a port of its own: clients must not get at [admin]"));
        }
        Ok(address)
    });
    let token_file = fields.required("token_file", "token_file = \"admin.token\"", |value| {
        path(value, directory, "admin.token")
    });
    fields.finish();
    Some(AdminTcp {
        address: address?,
        token_file: token_file?,
    })
}

fn socket(value: &Value<'_>, directory: &Path) -> Result<PathBuf, Complaint> {
    let path = path(value, directory, "/run/waypost/admin.sock")?;
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(Complaint::new("is too long for the path of a socket")
            .label(format!("more than {SOCKET_PATH_MAX} bytes"))
            .help("choose a directory nearer to the root, such as /run/waypost"));
    }
    Ok(path)
}

fn path(value: &Value<'_>, directory: &Path, example: &str) -> Result<PathBuf, Complaint> {
    let refused = |label: &str| {
        Complaint::new("is not the path of a file")
            .label(label)
            .help(format!("write for example {example:?}"))
    };
    let path = string(value)?;
    if path.is_empty() {
        return Err(refused("empty"));
    }
    if path.contains('\0') {
        return Err(refused("has a zero byte in it"));
    }
    if path.starts_with("unix:") || path.contains("://") {
        return Err(refused("this is a URL"));
    }
    if path.ends_with('/') {
        return Err(refused("this is a directory"));
    }
    Ok(directory.join(path))
}
