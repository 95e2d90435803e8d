//! Who listens on a port of this machine, as far as the system tells.

use std::fs;

/// `process 4711 (redis-server)`, where /proc names one that this user may see.
pub fn owner_of(port: u16) -> Option<String> {
    let inode = listening_inode(port)?;
    let link = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = |f: fs::DirEntry| fs::read_link(f.path()).is_ok_and(|to| to.as_os_str() == link.as_str());
        if files.flatten().any(holds) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("process {pid} ({})", name.trim()));
        }
    }
    None
}

/// The socket that listens on a port, by the kernel's tables.
fn listening_inode(port: u16) -> Option<u64> {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        fs::read_to_string(table).ok()?.lines().skip(1).find_map(|line| listening(line, port))
    })
}

/// The socket of a line of the table, if it listens on the port.
fn listening(line: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let columns: Vec<&str> = line.split_whitespace().collect();
    let at = columns.get(1)?.rsplit(':').next()?;
    let is_it = u16::from_str_radix(at, 16) == Ok(port) && *columns.get(3)? == LISTEN;
    is_it.then(|| columns.get(9)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_names_the_listening_socket() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100 0 0 10 0";
        assert_eq!(listening(line, 8080), Some(12345));
        assert_eq!(listening(line, 8081), None);
        assert_eq!(listening(&line.replace(" 0A ", " 01 "), 8080), None);
        assert_eq!(listening("", 8080), None);
    }

    #[test]
    fn a_port_of_this_process_has_this_process_as_owner() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let owner = owner_of(port).unwrap();
        assert!(owner.starts_with(&format!("process {} (", std::process::id())), "{owner}");
    }
}
