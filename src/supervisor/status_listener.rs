//! `pm.status_listen`: status and ping pages at an address of their own, which the supervisor answers itself: also while all
//! workers of the pool are busy, and without counting as one of its requests.
//!
//! php-fpm has a pool of workers there, which would run any script; here everything else is answered 404.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::config::{Limits, ListenAddress, PoolConfig};
use crate::fastcgi::{Decoder, DecoderLimits, Event, ProtocolStatus, RecordType, encoder};
use crate::log;
use crate::request::Variables;
use crate::server::AllowedClients;
use crate::status::Pages;

/// Answers at `socket`, which listens at `address`, until the task is aborted.
pub(super) fn spawn(
    socket: OwnedFd,
    config: &PoolConfig,
    address: &ListenAddress,
    pages: Arc<Pages>,
) -> JoinHandle<()> {
    // What is wrong in it, worker processes report.
    let (allowed, _) = AllowedClients::parse(config.socket.allowed_clients.as_deref());
    let pool = config.name.clone();
    let is_unix = matches!(address, ListenAddress::Unix(_));
    tokio::spawn(async move {
        let listener = if is_unix {
            UnixListener::from_std(socket.into()).map(Listener::Unix)
        } else {
            TcpListener::from_std(socket.into()).map(Listener::Tcp)
        };
        match listener {
            Ok(listener) => serve(&listener, &pool, &allowed, &pages).await,
            Err(error) => log::error(format_args!(
                "[pool {pool}] pm.status_listen is not served: {error}"
            )),
        }
    })
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Listener {
    /// A connection, and the address that it comes from, unless it is through a Unix socket.
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Option<IpAddr>)> {
        Ok(match self {
            Self::Unix(listener) => (Box::new(listener.accept().await?.0), None),
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                (Box::new(stream), Some(peer.ip()))
            }
        })
    }
}

async fn serve(listener: &Listener, pool: &str, allowed: &AllowedClients, pages: &Arc<Pages>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let (Ok(permit), Ok((stream, peer))) = (
            Arc::clone(&room).acquire_owned().await,
            listener.accept().await,
        ) else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        if let Some(peer) = peer.filter(|peer| !allowed.allows(*peer)) {
            log::error(format_args!(
                "[pool {pool}] pm.status_listen: Connection disallowed: IP address '{}' has been dropped.",
                peer.to_canonical()
            ));
            continue;
        }
        let pages = Arc::clone(pages);
        tokio::spawn(async move {
            answer_in_time(stream, &pages).await;
            drop(permit);
        });
    }
}

/// A client that goes, sends nonsense or takes too long gets no more answers, which is all there is to do about it.
async fn answer_in_time(stream: Box<dyn Stream>, pages: &Pages) {
    let _ = tokio::time::timeout(LONGEST, answer(stream, pages)).await;
}

async fn answer(
    mut stream: Box<dyn Stream>,
    pages: &Pages,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let limits = Limits::default();
    let mut decoder = Decoder::new(DecoderLimits {
        params_size: limits.params_size,
        params_count: limits.params_count,
        requests: 1,
    });
    let mut input = Vec::new();
    loop {
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        let mut output = Vec::new();
        let mut close = false;
        let mut rest = input.as_slice();
        while let Some(event) = decoder.decode(&mut rest)? {
            match event {
                Event::Request {
                    id,
                    keep_conn,
                    variables,
                    ..
                } => {
                    let page = page(pages, &variables);
                    encoder::push_stream(&mut output, RecordType::Stdout, id, &page);
                    encoder::push_stream_end(&mut output, RecordType::Stdout, id);
                    encoder::push_end_request(&mut output, id, 0, ProtocolStatus::RequestComplete);
                    close |= !keep_conn;
                }
                Event::StdinEnd { id } | Event::Abort { id } => decoder.end_request(id),
                // A body is of no use to a page; other questions are for the pool's own address.
                _ => {}
            }
        }
        let used = input.len() - rest.len();
        input.drain(..used);
        stream.write_all(&output).await?;
        if close {
            return Ok(());
        }
    }
}

fn page(pages: &Pages, variables: &Variables) -> Vec<u8> {
    match pages.kind(variables) {
        Some(kind) => pages.page(kind, variables),
        None => b"Status: 404 Not Found\r\nContent-type: text/html; charset=UTF-8\r\n\r\nFile not found.\n".to_vec(),
    }
}

/// Connections at once; more wait.
const CONNECTIONS: usize = 64;

/// A kept-alive connection is closed after this time.
const LONGEST: Duration = Duration::from_secs(60);

/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);
