//! Who is at the other end. Both sides prove that they know the cluster's secret; the dialer first, so a stranger gets no proof to work on.
//! Pure: nonces come from outside.
//!
//! ```text
//! dialer                                           listener
//!   Hello {version, cluster, from, to, epoch, nonce} ─▶   version, cluster, `to` is this boot
//!   ◀─ Challenge {nonce}
//!   Proof {HMAC("dialer", both nonces, all of Hello)} ─▶
//!   ◀─ Welcome {HMAC("listener", the same)}
//! ```
//! HMAC-SHA256, compared in constant time. Without a secret the proofs are empty, and both ends must be loopback addresses.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use router::registry::NodeId;
use sha2::Sha256;

use super::frame::{Hello, Token, VERSION};

/// Shortest secret, bytes.
const SECRET_MIN: usize = 32;
/// Longest name of a cluster, bytes.
const CLUSTER_MAX: usize = 64;
const NONCE: usize = 32;

/// Bytes nobody can guess, new for each handshake.
pub(super) type Nonce = [u8; NONCE];

/// Why two nodes do not link. The names are the label `why` of `switchboard_link_refused_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Refused {
    Version,
    Cluster,
    /// It is meant for another node, or for a former boot of this one.
    Node,
    Secret,
    /// No secret, and not a loopback address.
    NotLoopback,
    /// Too many links or handshakes.
    Full,
    /// Bytes that are no frame, or a frame at the wrong place.
    Garbage,
    /// The handshake took too long.
    Slow,
}

impl Refused {
    const ALL: [Self; 8] =
        [Self::Version, Self::Cluster, Self::Node, Self::Secret, Self::NotLoopback, Self::Full, Self::Garbage, Self::Slow];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Cluster => "cluster",
            Self::Node => "node",
            Self::Secret => "secret",
            Self::NotLoopback => "not_loopback",
            Self::Full => "full",
            Self::Garbage => "garbage",
            Self::Slow => "slow",
        }
    }

    pub(super) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|why| why.name() == name)
    }
}

/// What a process shows to the others of its cluster.
#[derive(Clone)]
pub struct Credentials {
    pub(super) me: NodeId,
    cluster: String,
    secret: Option<Hmac<Sha256>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { me, cluster, secret } = self;
        let secret = if secret.is_some() { "present" } else { "absent" };
        f.debug_struct("Credentials").field("me", me).field("cluster", cluster).field("secret", &secret).finish()
    }
}

/// Credentials that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadCredentials {
    /// The cluster's secret is too short to be one.
    #[error("the cluster's secret must have at least {SECRET_MIN} bytes")]
    Secret,
    /// The cluster's name is empty or too long.
    #[error("the cluster's name has 1 to {CLUSTER_MAX} bytes")]
    Cluster,
}

impl Credentials {
    /// This boot of this node in this cluster. `secret` is the same on all nodes, 32 random bytes or more; without one only loopback addresses
    /// are dialed and taken.
    ///
    /// # Errors
    /// [`BadCredentials`] when the secret or the name cannot be.
    pub fn new(me: NodeId, cluster: &str, secret: Option<&[u8]>) -> Result<Self, BadCredentials> {
        if cluster.is_empty() || cluster.len() > CLUSTER_MAX {
            return Err(BadCredentials::Cluster);
        }
        let key = |secret: &[u8]| {
            if secret.len() < SECRET_MIN {
                return Err(BadCredentials::Secret);
            }
            Hmac::new_from_slice(secret).map_err(|_| BadCredentials::Secret)
        };
        Ok(Self { me, cluster: cluster.to_owned(), secret: secret.map(key).transpose()? })
    }

    /// This boot of this node.
    pub const fn me(&self) -> NodeId {
        self.me
    }

    /// Whether there is a secret.
    pub const fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    /// The first words of a link.
    pub(super) fn hello(&self, to: NodeId, link_epoch: u64, nonce: Nonce) -> Hello {
        Hello {
            version: VERSION,
            cluster: self.cluster.clone(),
            from: Some(self.me.into()),
            to: Some(to.into()),
            link_epoch,
            nonce: nonce.to_vec(),
        }
    }
}

/// One handshake, from either side.
pub(super) struct Handshake<'a> {
    credentials: &'a Credentials,
    hello: Hello,
    challenge: Vec<u8>,
    /// Who dials.
    pub(super) from: NodeId,
    to: NodeId,
}

impl<'a> Handshake<'a> {
    /// The dialer's side, once it is challenged.
    pub(super) fn challenged(credentials: &'a Credentials, to: NodeId, hello: Hello, challenge: Token) -> Result<Self, Refused> {
        let challenge = challenge.bytes;
        if challenge.len() != NONCE {
            return Err(Refused::Garbage);
        }
        Ok(Self { credentials, hello, challenge, from: credentials.me, to })
    }

    /// The listener's side: judges the first words. The version comes first: nothing else can be relied on without it.
    pub(super) fn heard(credentials: &'a Credentials, hello: Hello, nonce: Nonce) -> Result<Self, Refused> {
        if hello.version != VERSION {
            return Err(Refused::Version);
        }
        let node = |wire: Option<super::frame::WireNode>| wire.and_then(super::frame::WireNode::id).ok_or(Refused::Garbage);
        let (from, to) = (node(hello.from)?, node(hello.to)?);
        if hello.nonce.len() != NONCE {
            return Err(Refused::Garbage);
        }
        if hello.cluster != credentials.cluster {
            return Err(Refused::Cluster);
        }
        if to != credentials.me {
            return Err(Refused::Node);
        }
        Ok(Self { credentials, hello, challenge: nonce.to_vec(), from, to })
    }

    /// What the dialer is asked.
    pub(super) fn challenge(&self) -> Token {
        Token { bytes: self.challenge.clone() }
    }

    /// Over everything that was said; every part has a fixed length or its length before it.
    fn mac(&self, side: &str) -> Option<Hmac<Sha256>> {
        let mut mac = self.credentials.secret.clone()?;
        let Hello { version, cluster, link_epoch, nonce, .. } = &self.hello;
        let mut part = |bytes: &[u8]| {
            mac.update(&(bytes.len() as u64).to_be_bytes());
            mac.update(bytes);
        };
        part(b"switchboard link");
        part(side.as_bytes());
        part(&version.to_be_bytes());
        part(cluster.as_bytes());
        for node in [self.from, self.to] {
            part(&node.node.to_be_bytes());
            part(&node.boot.to_be_bytes());
        }
        part(&link_epoch.to_be_bytes());
        part(nonce);
        part(&self.challenge);
        Some(mac)
    }

    fn prove(&self, side: &str) -> Token {
        Token { bytes: self.mac(side).map_or_else(Vec::new, |mac| mac.finalize().into_bytes().to_vec()) }
    }

    fn check(&self, side: &str, proof: &Token) -> Result<(), Refused> {
        let good = match self.mac(side) {
            Some(mac) => mac.verify_slice(&proof.bytes).is_ok(),
            None => proof.bytes.is_empty(),
        };
        if good { Ok(()) } else { Err(Refused::Secret) }
    }

    /// The dialer's proof.
    pub(super) fn proof(&self) -> Token {
        self.prove("dialer")
    }

    /// The listener looks at the dialer's proof and gives its own.
    pub(super) fn proved(&self, proof: &Token) -> Result<Token, Refused> {
        self.check("dialer", proof)?;
        Ok(self.prove("listener"))
    }

    /// The dialer looks at the listener's proof.
    pub(super) fn welcomed(&self, proof: &Token) -> Result<(), Refused> {
        self.check("listener", proof)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: NodeId = NodeId { node: 1, boot: 11 };
    const B: NodeId = NodeId { node: 2, boot: 22 };
    const KEY: Option<&[u8]> = Some(&[7; 32]);
    const OTHER: Option<&[u8]> = Some(&[8; 32]);

    fn credentials(me: NodeId, cluster: &str, secret: Option<&[u8]>) -> Credentials {
        Credentials::new(me, cluster, secret).unwrap()
    }

    /// The whole conversation; the hello may be changed on its way.
    fn meet(dialer: &Credentials, listener: &Credentials, change: impl FnOnce(&mut Hello)) -> Result<(), Refused> {
        let hello = dialer.hello(B, 5, [1; NONCE]);
        let mut heard = hello.clone();
        change(&mut heard);
        let listening = Handshake::heard(listener, heard, [2; NONCE])?;
        let dialing = Handshake::challenged(dialer, B, hello, listening.challenge())?;
        let welcome = listening.proved(&dialing.proof())?;
        dialing.welcomed(&welcome)
    }

    #[test]
    fn who_knows_the_secret_links() {
        assert_eq!(meet(&credentials(A, "c", KEY), &credentials(B, "c", KEY), |_| ()), Ok(()));
        assert_eq!(meet(&credentials(A, "c", None), &credentials(B, "c", None), |_| ()), Ok(()));
    }

    #[test]
    fn each_difference_is_refused_by_its_name() {
        let a = credentials(A, "c", KEY);
        let b = credentials(B, "c", KEY);
        assert_eq!(meet(&a, &credentials(B, "c", OTHER), |_| ()), Err(Refused::Secret));
        assert_eq!(meet(&credentials(A, "c", None), &b, |_| ()), Err(Refused::Secret));
        assert_eq!(meet(&a, &credentials(B, "c", None), |_| ()), Err(Refused::Secret));
        assert_eq!(meet(&a, &credentials(B, "d", KEY), |_| ()), Err(Refused::Cluster));
        assert_eq!(meet(&a, &credentials(NodeId { boot: 23, ..B }, "c", KEY), |_| ()), Err(Refused::Node));
        assert_eq!(meet(&a, &b, |hello| hello.version = 2), Err(Refused::Version));
        assert_eq!(meet(&a, &b, |hello| hello.nonce.clear()), Err(Refused::Garbage));
        assert_eq!(meet(&a, &b, |hello| hello.from = None), Err(Refused::Garbage));
    }

    #[test]
    fn what_was_said_is_proved() {
        let (a, b) = (credentials(A, "c", KEY), credentials(B, "c", KEY));
        assert_eq!(meet(&a, &b, |hello| hello.link_epoch += 1), Err(Refused::Secret));
        assert_eq!(meet(&a, &b, |hello| hello.nonce[0] ^= 1), Err(Refused::Secret));
        assert_eq!(meet(&a, &b, |hello| hello.from = Some(NodeId { boot: 12, ..A }.into())), Err(Refused::Secret));
    }

    #[test]
    fn a_proof_is_good_for_one_side_and_one_handshake() {
        let (a, b) = (credentials(A, "c", KEY), credentials(B, "c", KEY));
        let hello = a.hello(B, 5, [1; NONCE]);
        let first = Handshake::heard(&b, hello.clone(), [2; NONCE]).unwrap();
        let dialing = Handshake::challenged(&a, B, hello.clone(), first.challenge()).unwrap();
        let proof = dialing.proof();
        assert_eq!(dialing.welcomed(&proof), Err(Refused::Secret), "one's own proof comes back");
        let again = Handshake::heard(&b, hello, [3; NONCE]).unwrap();
        assert_eq!(again.proved(&proof), Err(Refused::Secret), "replayed");
        assert!(first.proved(&proof).is_ok());
    }

    #[test]
    fn credentials_that_cannot_be() {
        assert_eq!(Credentials::new(A, "c", Some(&[1; 31])).unwrap_err(), BadCredentials::Secret);
        assert_eq!(Credentials::new(A, "", None).unwrap_err(), BadCredentials::Cluster);
        assert_eq!(Credentials::new(A, &"c".repeat(65), None).unwrap_err(), BadCredentials::Cluster);
        assert!(!format!("{:?}", credentials(A, "c", Some(&[b'S'; 40]))).contains("SSS"));
    }

    #[test]
    fn names_are_read_back() {
        assert!(Refused::ALL.into_iter().all(|why| Refused::of(why.name()) == Some(why)));
    }

    proptest! {
        #[test]
        fn no_guess_is_a_proof(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let (a, b) = (credentials(A, "c", KEY), credentials(B, "c", KEY));
            let listening = Handshake::heard(&b, a.hello(B, 5, [1; NONCE]), [2; NONCE]).unwrap();
            prop_assert_eq!(listening.proved(&Token { bytes }), Err(Refused::Secret));
        }
    }
}
