//! How crews are commanded over a stream of bytes: one JSON object a line.

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use super::{Ear, NEWS_MAX, ORDERS_MAX};
use crate::crew::{self, Job, News, Order};

/// A job of 20,000 users with their tokens is a few megabytes; nobody says more in a line.
const LINE_MAX: usize = 256 << 20;

/// The conductor's end: hands the job over, then passes orders and news on.
///
/// # Errors
/// When the job cannot be handed over.
pub(super) async fn command<R, W>(input: R, mut output: W, job: Job, (index, ear): Ear) -> Result<mpsc::Sender<Order>>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    say(&mut output, &job).await.context("handing a job over")?;
    let (orders, mut given) = mpsc::channel(ORDERS_MAX);
    tokio::spawn(async move {
        while let Some(order) = given.recv().await {
            // A crew that is gone is noticed where its news are read.
            if say(&mut output, &order).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        let mut input = BufReader::new(input);
        loop {
            let news = match hear::<News>(&mut input).await {
                Ok(Some(news)) => news,
                Ok(None) => News::Failed("its process ended".to_owned()),
                Err(why) => News::Failed(format!("{why:#}")),
            };
            let last = matches!(news, News::Done(_) | News::Failed(_));
            if ear.send((index, news)).await.is_err() || last {
                return;
            }
        }
    });
    Ok(orders)
}

/// The crew's end: takes a job and does it. Returns when it is done, or nobody commands any more.
///
/// # Errors
/// When no job comes, or the stream fails.
pub async fn obey<R, W>(input: R, mut output: W) -> Result<()>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut input = BufReader::new(input);
    let job: Job = hear(&mut input).await?.context("no job came")?;
    let (orders, obeyed) = mpsc::channel(ORDERS_MAX);
    let (news, mut told) = mpsc::channel(NEWS_MAX);
    let mut crew = tokio::spawn(crew::run(job, obeyed, news));
    let listening = async {
        while let Some(order) = hear::<Order>(&mut input).await? {
            if orders.send(order).await.is_err() {
                break;
            }
        }
        anyhow::Ok(())
    };
    let telling = async {
        while let Some(news) = told.recv().await {
            say(&mut output, &news).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        ended = telling => ended?,
        ended = listening => {
            // Whoever commands is gone: nobody wants this load any more.
            crew.abort();
            ended?;
        }
    }
    let _ = (&mut crew).await;
    Ok(())
}

/// Writes one line.
pub(super) async fn say(output: &mut (impl AsyncWrite + Unpin), what: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    output.write_all(&line).await?;
    output.flush().await?;
    Ok(())
}

/// Reads one line; `None` at the end.
pub(super) async fn hear<T: DeserializeOwned>(input: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<T>> {
    use tokio::io::AsyncReadExt as _;
    let mut line = Vec::new();
    let mut limited = input.take(LINE_MAX as u64);
    if limited.read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).context("a line that is not understood")
}
