//! `aircheck up`: everything in one process.
//!
//! Owns the order in which services start and end. They talk over real gRPC on loopback ports, as
//! they would across machines; nothing here may give them a shorter way.

use super::{
    service::{Service, bind},
    up_flags,
};
use crate::{
    http::{Http, join},
    lock::DirLock,
    output,
    s3::DevS3,
};
use aircheck_runtime::{backoff::Backoff, health::Health, shutdown::Shutdown};
use anyhow::{Context as _, bail};
use http::StatusCode;
use std::{net::SocketAddr, process::ExitCode, time::Duration};
use tokio::{net::TcpListener, time::timeout};
pub(crate) use up_flags::Up;
use up_flags::{S3Place, displayed, reachable};

/// How long the page waits for a database that does not answer. A show can be recorded without one.
const ARCHIVER_WAIT: Duration = Duration::from_secs(10);
/// How long the gateway may take to answer its first request.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Runs everything until a signal.
///
/// # Errors
/// If an address or the data directory is taken, or a service fails.
pub(crate) async fn run(up: Up) -> anyhow::Result<ExitCode> {
    let wish = Shutdown::on_signals().context("listen to signals")?;
    let _data = DirLock::take(&up.data_dir)?;
    let _spool = DirLock::take(&up.spool_dir())?;
    let listeners = Listeners::bind(&up).await?;
    let ended = Shutdown::new();
    let mut house = House::default();
    let opened = Box::pin(house.open(&up, listeners, &wish, &ended)).await;
    if matches!(opened, Ok(Opening::Serving)) {
        output::print("ready")?;
        tokio::select! { () = wish.triggered() => {}, () = ended.triggered() => {} }
    }
    let closed = house.close(wish.is_triggered()).await;
    opened?;
    closed?;
    Ok(ExitCode::SUCCESS)
}

/// Every port, bound before anything starts.
struct Listeners {
    gateway: TcpListener,
    ingest: TcpListener,
    archiver: TcpListener,
    /// Where S3 is ours.
    s3: Option<TcpListener>,
}

impl Listeners {
    async fn bind(up: &Up) -> anyhow::Result<Self> {
        Ok(Self {
            gateway: bind(up.listen).await?,
            ingest: bind(up.ingest_listen).await?,
            archiver: bind(up.archiver_listen).await?,
            s3: match up.store.is_ours() {
                true => Some(bind(up.s3_listen).await?),
                false => None,
            },
        })
    }
}

/// Whether the house stands.
enum Opening {
    Serving,
    /// A signal came first.
    Wished,
}

/// What runs, in the order in which it ends.
#[derive(Default)]
struct House {
    gateway: Option<Service>,
    ingest: Option<Service>,
    archiver: Option<Service>,
    s3: Option<Service>,
}

impl House {
    async fn open(
        &mut self,
        up: &Up,
        listeners: Listeners,
        wish: &Shutdown,
        ended: &Shutdown,
    ) -> anyhow::Result<Opening> {
        let page = reachable(address(&listeners.gateway)?);
        let place = self.open_s3(up, listeners.s3, ended)?;
        let urls = (url(&listeners.ingest)?, url(&listeners.archiver)?);
        output::print(&describe(up, &page, &urls, &place))?;
        let archiver = up.archiver(&place);
        let archiver = self
            .archiver
            .insert(Service::spawn("archiver", ended, |stop, health| {
                aircheck_archiver::serve(archiver, listeners.archiver, stop, health)
            }));
        let ingest = up.ingest(&urls.0, &urls.1);
        let ingest = self
            .ingest
            .insert(Service::spawn("ingest", ended, |stop, health| {
                aircheck_ingest::serve(ingest, listeners.ingest, stop, health)
            }));
        let readiness = async {
            ingest.ready().await;
            if timeout(ARCHIVER_WAIT, archiver.ready()).await.is_err() {
                tracing::warn!("the database does not answer; shows are recorded all the same");
            }
        };
        tokio::select! {
            () = wish.triggered() => return Ok(Opening::Wished),
            // Its own error says why.
            () = ended.triggered() => return Ok(Opening::Wished),
            () = readiness => {}
        }
        let gateway = up.gateway(&urls.0, &urls.1);
        self.gateway = Some(Service::spawn("gateway", ended, |stop, health| {
            aircheck_gateway::serve(gateway, listeners.gateway, stop, health)
        }));
        tokio::select! {
            () = wish.triggered() => Ok(Opening::Wished),
            () = ended.triggered() => Ok(Opening::Wished),
            answered = answers(&page) => answered.map(|()| Opening::Serving),
        }
    }

    /// Starts the S3 server of the default set-up, where no other one is named.
    fn open_s3(
        &mut self,
        up: &Up,
        listener: Option<TcpListener>,
        ended: &Shutdown,
    ) -> anyhow::Result<S3Place> {
        let Some(listener) = listener else {
            return Ok(S3Place::theirs(&up.store));
        };
        let place = S3Place::ours(&up.store, &reachable(address(&listener)?));
        let server = DevS3::open(
            &up.objects_dir(),
            &place.bucket,
            &place.access_key_id,
            place.secret_access_key.expose(),
        )?;
        self.s3 = Some(Service::spawn(
            "s3",
            ended,
            |stop, health: Health| async move {
                health.ready();
                server.serve(listener, stop).await;
                Ok::<(), anyhow::Error>(())
            },
        ));
        Ok(place)
    }

    /// Ends from the outside in: whoever still works may rely on everything behind it.
    async fn close(self, wished: bool) -> anyhow::Result<()> {
        let mut first = Ok(());
        for service in [self.gateway, self.ingest, self.archiver, self.s3]
            .into_iter()
            .flatten()
        {
            let ended = service.end(wished).await;
            if first.is_ok() {
                first = ended;
            } else if let Err(error) = ended {
                tracing::error!(error = format!("{error:#}"), "end a service");
            }
        }
        first
    }
}

fn address(listener: &TcpListener) -> anyhow::Result<SocketAddr> {
    listener.local_addr().context("ask for the port")
}

fn url(listener: &TcpListener) -> anyhow::Result<String> {
    Ok(reachable(address(listener)?))
}

/// Waits until the page's own `/readyz` says so.
async fn answers(page: &str) -> anyhow::Result<()> {
    let (http, url) = (Http::new(), join(page, "/readyz")?);
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(500));
    let asking = async {
        loop {
            match http.open(&url, None).await {
                Ok(answer) if answer.status() == StatusCode::OK => return,
                Ok(_) | Err(_) => tokio::time::sleep(backoff.delay()).await,
            }
        }
    };
    if timeout(ANSWER_WAIT, asking).await.is_err() {
        bail!("{url} does not answer 200");
    }
    Ok(())
}

/// Where everything is, for people and for scripts.
fn describe(up: &Up, page: &str, (ingest, archiver): &(String, String), place: &S3Place) -> String {
    let keys = match up.store.is_ours() {
        true => format!(
            ", access key {}, secret key {} (development only)",
            place.access_key_id,
            place.secret_access_key.expose()
        ),
        false => String::new(),
    };
    format!(
        "aircheck {version}\n  page      {page}/\n  ingest    {ingest} (gRPC)\n  archiver  {archiver} (gRPC)\n  \
         s3        {endpoint} bucket {bucket}{keys}\n  database  {database}\n  spool     {spool}\n  data      {data}",
        version = env!("CARGO_PKG_VERSION"),
        endpoint = place.endpoint.as_deref().unwrap_or("AWS"),
        bucket = place.bucket,
        database = displayed(&up.database_url()),
        spool = up.spool_dir().display(),
        data = up.data_dir.display(),
    )
}
