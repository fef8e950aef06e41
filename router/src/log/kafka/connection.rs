//! One connection to one broker: requests of the Kafka protocol, one at a time, by the protocol's codec. A broker answers the requests of a
//! connection one after the other anyway, so more on their way would only wait there.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message, StrBytes, VersionRange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a broker may take to let us in.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long a broker may be without a sign: a byte taken, a byte of the answer. A frozen one is given up after this, a slow line is not.
pub(super) const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Every broker answers this version, whatever else it speaks.
const API_VERSIONS_VERSION: i16 = 0;
/// Topics are named by name up to here, by number beyond.
const VERSIONS_MAX: [(ApiKey, i16); 4] =
    [(ApiKey::Produce, 12), (ApiKey::Fetch, 12), (ApiKey::Metadata, 12), (ApiKey::InitProducerId, 4)];

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// No connection, or it ended.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// No answer in time.
    #[error("no answer in {0:?}")]
    Late(Duration),
    /// What came is no answer to what was asked, or the broker does not speak what we do.
    #[error("{0}")]
    Protocol(String),
}

impl Broken {
    fn protocol(why: impl std::fmt::Display) -> Self {
        Self::Protocol(why.to_string())
    }
}

/// A connection that is of use. A call that was dropped midway leaves it of none.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    versions: BTreeMap<i16, VersionRange>,
    correlation: i32,
    input: BytesMut,
}

impl Connection {
    /// Connects and asks what the broker speaks.
    pub(super) async fn open(address: &str) -> Result<Self, Broken> {
        let opened = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?; // K11
            let mut connection = Self { stream, versions: BTreeMap::new(), correlation: 0, input: BytesMut::new() };
            let known: ApiVersionsResponse =
                connection.exchange(ApiKey::ApiVersions, API_VERSIONS_VERSION, &ApiVersionsRequest::default()).await?;
            connection.versions = known
                .api_keys
                .iter()
                .map(|api| (api.api_key, VersionRange { min: api.min_version, max: api.max_version }))
                .collect();
            Ok(connection)
        };
        timeout(CONNECT_WAIT, opened).await.map_err(|_| Broken::Late(CONNECT_WAIT))?
    }

    /// Asks, and waits for the answer.
    pub(super) async fn call<A, B>(&mut self, api: ApiKey, request: &A) -> Result<B, Broken>
    where
        A: Encodable + HeaderVersion + Message,
        B: Decodable + HeaderVersion,
    {
        let theirs =
            self.versions.get(&(api as i16)).ok_or_else(|| Broken::protocol(format!("the broker does not know {api:?}")))?;
        let ours = VERSIONS_MAX.iter().find(|(known, _)| *known == api).map_or(A::VERSIONS.max, |(_, max)| *max);
        let version = theirs.max.min(ours);
        if version < theirs.min.max(A::VERSIONS.min) {
            return Err(Broken::protocol(format!("the broker speaks {api:?} from {} to {}", theirs.min, theirs.max)));
        }
        self.exchange(api, version, request).await
    }

    async fn exchange<A, B>(&mut self, api: ApiKey, version: i16, request: &A) -> Result<B, Broken>
    where
        A: Encodable + HeaderVersion,
        B: Decodable + HeaderVersion,
    {
        self.correlation = self.correlation.wrapping_add(1);
        let mut bytes = frame::<A>(api, version, self.correlation, request)?;
        while !bytes.is_empty() {
            if in_time(self.stream.write_buf(&mut bytes)).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
            }
        }
        let mut answer = self.answer().await?;
        let header = ResponseHeader::decode(&mut answer, B::header_version(version)).map_err(Broken::protocol)?;
        if header.correlation_id != self.correlation {
            return Err(Broken::protocol(format!("answer {} to request {}", header.correlation_id, self.correlation)));
        }
        B::decode(&mut answer, version).map_err(Broken::protocol)
    }

    async fn answer(&mut self) -> Result<Bytes, Broken> {
        loop {
            if let Some(mut head) = self.input.get(..4) {
                let length = usize::try_from(head.get_i32()).unwrap_or(usize::MAX);
                if length > ANSWER_BYTES_MAX {
                    return Err(Broken::protocol(format!("an answer of {length} bytes")));
                }
                if self.input.len() >= 4 + length {
                    self.input.advance(4);
                    return Ok(self.input.split_to(length).freeze());
                }
                self.input.reserve(4 + length - self.input.len());
            } else {
                self.input.reserve(4096);
            }
            if in_time(self.stream.read_buf(&mut self.input)).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

async fn in_time(step: impl Future<Output = std::io::Result<usize>>) -> Result<usize, Broken> {
    Ok(timeout(REQUEST_WAIT, step).await.map_err(|_| Broken::Late(REQUEST_WAIT))??)
}

/// A request as it goes over the wire: its length, its head, itself.
fn frame<A: Encodable + HeaderVersion>(api: ApiKey, version: i16, correlation: i32, request: &A) -> Result<BytesMut, Broken> {
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str("switchboard")));
    let mut bytes = BytesMut::with_capacity(64 + request.compute_size(version).map_err(Broken::protocol)?);
    bytes.put_i32(0);
    header.encode(&mut bytes, A::header_version(version)).map_err(Broken::protocol)?;
    request.encode(&mut bytes, version).map_err(Broken::protocol)?;
    let length = i32::try_from(bytes.len() - 4).map_err(Broken::protocol)?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}
