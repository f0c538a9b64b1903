//! Faults of disk and network.
//!
//! Owns small file systems and a TCP proxy with bad habits; both vanish with their owner.

use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::{Pid, Resource, Rlimit, geteuid, getrlimit, prlimit},
};
use std::{
    ffi::CString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// Bytes that the proxy moves at a time.
const PROXY_BUFFER: usize = 16 << 10;
/// How long it keeps each buffer in slow weather.
const SLOWNESS: Duration = Duration::from_millis(500);

/// A file system of a few bytes in memory.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of `bytes` at a new folder; `None`, with a message, where that is not allowed.
    ///
    /// # Panics
    /// If mounting fails for another reason than permission.
    #[must_use]
    pub fn mount(at: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir_all(at).expect("a folder to mount on");
        let options = CString::new(format!("size={bytes},mode=0755")).expect("no zero in options");
        match mount(
            "tmpfs",
            at,
            "tmpfs",
            MountFlags::empty(),
            Some(options.as_c_str()),
        ) {
            Ok(()) => Some(Self(at.to_owned())),
            Err(error @ (Errno::PERM | Errno::ACCESS)) => {
                skipped(&format!(
                    "mounting a small disk needs root in a namespace of its own: {error}"
                ));
                None
            }
            Err(error) => panic!("mount a tmpfs at {}: {error}", at.display()),
        }
    }

    /// Takes away all room that is left, by a file of the test's own.
    ///
    /// # Panics
    /// If even that file can't be created.
    pub fn fill(&self) {
        use std::io::Write as _;
        let mut ballast = fs::File::create(self.0.join("ballast")).expect("a file of ballast");
        while ballast.write_all(&[0; 4096]).is_ok() {}
    }

    /// Gives back the room that [`Self::fill`] took.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn free(&self) {
        fs::remove_file(self.0.join("ballast")).expect("a file of ballast");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still has files open there may finish; the name is gone at once.
        let unmounted = unmount(&self.0, UnmountFlags::DETACH);
        assert!(
            unmounted.is_ok() || std::thread::panicking(),
            "unmount {}",
            self.0.display()
        );
    }
}

/// A process that may open no more files, as long as this value lives.
#[derive(Debug)]
pub struct FewFiles {
    process: Pid,
    before: Rlimit,
}

impl FewFiles {
    /// What is open stays open.
    ///
    /// # Panics
    /// If there is no such process, or not the right to do this.
    #[must_use]
    pub fn limit(process: u32) -> Self {
        let process = i32::try_from(process).ok().and_then(Pid::from_raw);
        let process = process.expect("a process id");
        // Children inherit the most there may be.
        let few = Rlimit {
            current: Some(3),
            ..getrlimit(Resource::Nofile)
        };
        let before = prlimit(Some(process), Resource::Nofile, few).expect("set a limit");
        Self { process, before }
    }
}

impl Drop for FewFiles {
    fn drop(&mut self) {
        let set = prlimit(Some(self.process), Resource::Nofile, self.before);
        assert!(set.is_ok() || std::thread::panicking(), "lift a limit");
    }
}

/// Whether this test may do what only root may.
#[must_use]
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Says in the test's output that a test did not run.
#[expect(
    clippy::print_stderr,
    reason = "a skipped test must be seen by whoever reads the output"
)]
pub fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// What the proxy does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Passes them on, both ways.
    Fine,
    /// Passes them on late and thinly: half a second a way, at most 256 kbit/s.
    Slow,
    /// Holds them, both ways, and keeps all connections open.
    Stalled,
    /// Passes on what clients send, and throws away what they should hear.
    Mute,
    /// Resets all connections, and every new one.
    Cut,
}

/// A TCP proxy.
#[derive(Debug)]
pub struct Proxy {
    /// Where clients connect.
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
    accepted: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Stands before `target`.
    ///
    /// # Panics
    /// If there is no port left.
    pub async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        let (weather, forecast) = watch::channel(Weather::Fine);
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(carry(client, target, forecast.clone()));
            }
        });
        Self {
            address,
            weather,
            accepted,
            accepting,
        }
    }

    /// Changes the weather, for all connections at once.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Connections so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One connection, to its end. When the proxy is dropped, so is its weather, and the connection ends.
async fn carry(client: TcpStream, target: SocketAddr, weather: watch::Receiver<Weather>) {
    let zero_linger = |stream: &TcpStream| stream.set_zero_linger().is_ok();
    // From now on every end of ours is a reset.
    if !zero_linger(&client) || *weather.borrow() == Weather::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    if !zero_linger(&server) {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = forward(from_client, to_server, weather.clone(), false) => {}
        () = forward(from_server, to_client, weather.clone(), true) => {}
        () = cut(weather) => {}
    }
}

async fn cut(mut weather: watch::Receiver<Weather>) {
    // An error means that the proxy is gone, which cuts as well.
    drop(weather.wait_for(|weather| *weather == Weather::Cut).await);
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    is_answer: bool,
) {
    let mut buffer = vec![0; PROXY_BUFFER];
    loop {
        if weather
            .wait_for(|weather| *weather != Weather::Stalled)
            .await
            .is_err()
        {
            return;
        }
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        // What came while the weather changed waits as well.
        let now = weather
            .wait_for(|weather| *weather != Weather::Stalled)
            .await
            .map(|weather| *weather);
        match now {
            Ok(Weather::Mute) if is_answer => {}
            Ok(Weather::Slow) => {
                tokio::time::sleep(SLOWNESS).await;
                if to.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
            Ok(_) if to.write_all(&buffer[..read]).await.is_ok() => {}
            Ok(_) | Err(_) => return,
        }
    }
}
