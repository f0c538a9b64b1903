//! A real moto server, from the Python environment that `./test` makes.
//!
//! It is killed with this value. Moto takes wrong checksums and lengths, and a repeated Complete with
//! other parts: it is a second opinion on what passes, not on what must be refused.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A running server.
#[derive(Debug)]
pub struct Moto {
    pub endpoint: String,
    server: Child,
}

impl Moto {
    /// With one bucket.
    ///
    /// # Panics
    /// If moto is not there, or does not come up.
    pub fn start(bucket: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/moto/bin");
        let python = root.join("python");
        assert!(
            python.exists(),
            "these tests need moto: ./test moto makes .tools/moto"
        );
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let server = Command::new(python)
            .args([
                "-m",
                "moto.server",
                "-H",
                "127.0.0.1",
                "-p",
                &port.to_string(),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("run moto");
        let moto = Self {
            endpoint: format!("http://127.0.0.1:{port}"),
            server,
        };
        let asked = Instant::now();
        while !Self::has_bucket(port, bucket) {
            assert!(
                asked.elapsed() < Duration::from_secs(60),
                "moto does not come up"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        moto
    }

    /// Makes the bucket, if the server answers yet. It asks nobody for a signature.
    fn has_bucket(port: u16, bucket: &str) -> bool {
        let ask = || {
            let mut socket = TcpStream::connect(("127.0.0.1", port))?;
            let head = "HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close";
            write!(socket, "PUT /{bucket} {head}\r\n\r\n")?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        };
        ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.server.kill().expect("kill moto");
        self.server.wait().expect("wait for moto");
    }
}
