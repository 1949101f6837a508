//! How nodes reach each other: over loopback, or each from a network namespace of its own, so that links can be cut.
//!
//! Everything lives in one namespace that this program was started in: a bridge, and for each node a pair of virtual
//! interfaces whose far end is in the node's namespace. A link is cut by a route into nothing at one of its ends. When
//! the processes have ended, the system takes all of it away.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::bench::BoxError;

const BRIDGE: &str = "chaos0";
/// Where nodes listen in their namespaces.
const PORT: u16 = 7_000;
/// How often it is looked, 5 ms apart, whether a process is in its namespace.
const NAMESPACE_TRIES: u32 = 1_000;

/// The network of a run.
pub(super) struct Network {
    /// Whether each node has a namespace.
    namespaces: bool,
}

/// Whether this program may make namespaces, and has the tools for it.
pub(super) fn is_possible() -> bool {
    let script = "ip link add chaos0 type bridge && ip link add chaos1 type veth peer name chaos2 && \
                  mount -t tmpfs -o size=1m tmpfs /mnt";
    let tried = unshare().args(["sh", "-c", script]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount"]);
    command
}

/// Becomes the same program in namespaces of its own; comes back only where that fails.
pub(super) fn go_inside() -> BoxError {
    let Ok(program) = std::env::current_exe() else { return "this program cannot be found".into() };
    let error = unshare().arg(program).args(std::env::args_os().skip(1)).arg("--inside").exec();
    format!("no namespace of its own: {error}").into()
}

fn ip(arguments: &str) -> Result<(), BoxError> {
    run(Command::new("ip").args(arguments.split_whitespace()))
}

fn run(command: &mut Command) -> Result<(), BoxError> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}

fn host(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, node as u8 + 1)
}

impl Network {
    /// Nodes side by side on loopback.
    pub(super) fn of_loopback() -> Self {
        Self { namespaces: false }
    }

    /// Nodes in namespaces of their own; this program is in one already.
    pub(super) fn of_namespaces() -> Result<Self, BoxError> {
        ip("link set lo up")?;
        ip(&format!("link add {BRIDGE} type bridge"))?;
        ip(&format!("addr add 10.77.0.254/24 dev {BRIDGE}"))?;
        ip(&format!("link set {BRIDGE} up"))?;
        Ok(Self { namespaces: true })
    }

    /// Whether links can be cut, and file systems made.
    pub(super) fn can_cut(&self) -> bool {
        self.namespaces
    }

    /// Where nodes listen.
    pub(super) fn addresses(&self, nodes: usize) -> Result<Vec<SocketAddr>, BoxError> {
        if self.namespaces {
            return Ok((0..nodes).map(|node| SocketAddr::from((host(node), PORT))).collect());
        }
        let sockets: Vec<UdpSocket> =
            (0..nodes).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        sockets.iter().map(|socket| Ok(socket.local_addr()?)).collect()
    }

    /// Where the clients' program listens.
    pub(super) fn client(&self) -> SocketAddr {
        let host = if self.namespaces { Ipv4Addr::new(10, 77, 0, 254) } else { Ipv4Addr::LOCALHOST };
        SocketAddr::from((host, 0))
    }

    /// What starts a node's program: it gets a namespace where there are any.
    pub(super) fn command(&self) -> Result<Command, BoxError> {
        let program = std::env::current_exe()?;
        if !self.namespaces {
            return Ok(Command::new(program));
        }
        let mut command = Command::new("unshare");
        command.arg("--net").arg(program);
        Ok(command)
    }

    /// Connects a node's process that has just started.
    pub(super) fn connect(&self, node: usize, pid: u32) -> Result<(), BoxError> {
        if !self.namespaces {
            return Ok(());
        }
        let (near, far) = (format!("near{node}"), format!("far{node}"));
        // That of the node's former life may still be there.
        let _ = ip(&format!("link del {near}"));
        // A node keeps its hardware address, as a machine does. With a new one nobody who still knows the old one would reach
        // it until that is forgotten, which takes seconds.
        let address = format!("02:00:0a:4d:00:{:02x}", node + 1);
        ip(&format!("link add {near} type veth peer name {far} address {address}"))?;
        ip(&format!("link set {near} master {BRIDGE} up"))?;
        await_namespace(pid)?;
        ip(&format!("link set {far} netns {pid}"))?;
        for line in [
            "link set lo up".to_owned(),
            format!("addr add {}/24 dev {far}", host(node)),
            format!("link set {far} up"),
        ] {
            inside(pid, &line)?;
        }
        Ok(())
    }

    /// From now on nothing gets from the node with this process to another.
    pub(super) fn cut(&self, pid: u32, to: usize) -> Result<(), BoxError> {
        inside(pid, &format!("route replace blackhole {}/32", host(to)))
    }

    /// It does again.
    pub(super) fn mend(&self, pid: u32, to: usize) -> Result<(), BoxError> {
        inside(pid, &format!("route del blackhole {}/32", host(to)))
    }

    /// Puts a small file system of its own at a path.
    pub(super) fn mount_small(&self, path: &std::path::Path, mebibytes: u32) -> Result<(), BoxError> {
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(path))
    }

    /// Takes it away.
    pub(super) fn unmount(&self, path: &std::path::Path) -> Result<(), BoxError> {
        run(Command::new("umount").arg("--lazy").arg(path))
    }
}

/// Waits until a process is in a namespace of its own, which it is a moment after it has started.
fn await_namespace(pid: u32) -> Result<(), BoxError> {
    let own = std::fs::read_link("/proc/self/ns/net")?;
    for _ in 0..NAMESPACE_TRIES {
        if std::fs::read_link(format!("/proc/{pid}/ns/net"))? != own {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(format!("process {pid} gets no namespace of its own").into())
}

fn inside(pid: u32, arguments: &str) -> Result<(), BoxError> {
    run(Command::new("nsenter")
        .args(["--net", "--target", &pid.to_string(), "ip"])
        .args(arguments.split_whitespace()))
}
