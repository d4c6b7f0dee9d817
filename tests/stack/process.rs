//! Processes of one stack: where they live, their logs, their ports, and that none survives.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Ports for servers that cannot report one that the system chose. They lie
/// below Linux's range for outgoing connections, so that none of those takes one.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// How long a process that was told to end may take before it is killed. A master that stops waits
/// for what its workers say of their runs.
const TERMINATE_DEADLINE: Duration = Duration::from_secs(60);

static STACKS: AtomicU32 = AtomicU32::new(0);

/// A directory of its own, and everything that was started in it.
///
/// Dropping it kills what still runs. The directory stays when the test failed,
/// or when `CI_WATCHDOG_KEEP` is set, so that its logs can be read.
pub struct Workplace {
    dir: PathBuf,
    leash: Arc<Leash>,
    ports: Mutex<Vec<File>>,
}

impl Workplace {
    /// Makes an empty directory, below the one that cargo keeps for tests.
    pub fn new() -> Self {
        let number = STACKS.fetch_add(1, Ordering::Relaxed);
        let name = format!("stack-{}-{number}", std::process::id());
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // A process id can come again; what it left behind is of no use.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("the directory of the test's files can be made");
        Self {
            dir,
            leash: Arc::new(Leash::new()),
            ports: Mutex::new(vec![]),
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a directory inside.
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).expect("a directory of the stack can be made");
        dir
    }

    /// Reserves a port of loopback until this workplace goes.
    ///
    /// Tests run side by side, each in its own process. A locked file per port
    /// keeps them apart; binding the port shows that no stranger has it.
    pub fn reserve_port(&self) -> u16 {
        let locks = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ports");
        fs::create_dir_all(&locks).expect("the directory of port locks can be made");
        let mut ports = self.ports.lock().unwrap();
        // Starting at a different port in each process makes collisions rare.
        let size = u32::from(PORTS.end - PORTS.start);
        let first = std::process::id().wrapping_mul(16) % size;
        for step in 0..size {
            let offset =
                u16::try_from((first + step) % size).expect("it is below the range's size");
            let port = PORTS.start + offset;
            let lock = File::create(locks.join(port.to_string())).expect("a lock can be made");
            if lock.try_lock().is_ok() && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
                ports.push(lock);
                return port;
            }
        }
        panic!("no port in {PORTS:?} is free");
    }

    /// Starts a process in a group of its own; its output goes to `NAME.log`.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Process {
        let log = self.dir.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log can be made");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file can be shared"))
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start ({command:?}): {error}"));
        self.leash.hold(child.id());
        Process {
            name: name.to_owned(),
            child,
            log,
            leash: Arc::clone(&self.leash),
        }
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("CI_WATCHDOG_KEEP").is_some() {
            eprintln!("the files of this stack are in {}", self.dir.display());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// One process, the leader of its group. Dropping it kills the group.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    leash: Arc<Leash>,
}

impl Process {
    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its number, and that of its group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, once it has ended.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Panics with the end of its log if it has ended.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} ended ({status}):\n{}", self.name, tail(&self.log, 40));
        }
    }

    /// Ends it as `kill -9` does.
    pub fn kill9(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    /// Asks it to end, as `systemctl stop` does, and waits until it has.
    pub async fn terminate(&mut self) {
        if !self.terminate_or_kill().await {
            panic!(
                "{} did not end in {TERMINATE_DEADLINE:?}:\n{}",
                self.name,
                tail(&self.log, 40)
            );
        }
    }

    /// The same, as `systemctl stop` does it to the end: what takes too long is killed. Whether it
    /// ended by itself.
    pub async fn terminate_or_kill(&mut self) -> bool {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + TERMINATE_DEADLINE;
        while self.ended().is_none() {
            if Instant::now() > deadline {
                self.kill9();
                return false;
            }
            // Not a blocking sleep: what it waits for may be served by this test.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// Stops it in its tracks: it keeps its connections and does nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen one go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Tells it to read its configuration again.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // It may have ended by itself; then there is nothing to tell.
        let _ = kill_process_group(pid.expect("a child has a process id"), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        self.leash.free(self.child.id());
    }
}

/// A small process that outlives the test only to kill what it left behind
/// (`tests/stack/leash.sh`). It does so when this is dropped, too.
pub struct Leash {
    child: Mutex<Child>,
    orders: Mutex<Option<ChildStdin>>,
}

impl Leash {
    /// Starts it; it holds nothing yet.
    pub fn new() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stack/leash.sh");
        let mut child = Command::new("sh")
            .arg(script)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("sh starts");
        let orders = child.stdin.take();
        Self {
            child: Mutex::new(child),
            orders: Mutex::new(orders),
        }
    }

    /// Kills this process group at the end.
    pub fn hold(&self, group: u32) {
        self.order("hold", group)
            .expect("the leash listens while the stack lives");
    }

    /// Leaves this process group alone, for it has ended.
    pub fn free(&self, group: u32) {
        // At the end of a test the leash may be gone already, and with it the need.
        let _ = self.order("free", group);
    }

    fn order(&self, order: &str, group: u32) -> io::Result<()> {
        let mut orders = self.orders.lock().unwrap();
        orders
            .as_mut()
            .map_or(Ok(()), |pipe| writeln!(pipe, "{order} {group}"))
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        drop(self.orders.lock().unwrap().take());
        let _ = self.child.lock().unwrap().wait();
    }
}

/// The last lines of a file, for a message that says what went wrong.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let first = all.len().saturating_sub(lines);
    format!("--- {}\n{}", path.display(), all[first..].join("\n"))
}
