//! Tokens: JWT (RFC 7519), HS256 and nothing else. A valid one says who the client is; what it may do is not in it.

use std::sync::Arc;

use accounts::Sid;
use accounts::revoked::Revoked;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use protocol::limits::TOKEN_BYTES_MAX;
use protocol::{DeviceName, UserId};
use serde::{Deserialize, Serialize};

use crate::error::GatewayError;

/// `iss` and `aud` of every token.
pub const ISSUER: &str = "switchboard";
/// How long a token is good, seconds: 7 days.
pub const LIFETIME_S: u64 = accounts::session::ACCESS_S;
/// Clocks may differ by this, seconds.
const LEEWAY_S: u64 = 5;
/// Shortest secret, bytes.
pub const SECRET_BYTES_MIN: usize = 32;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user, as a decimal string.
    pub sub: UserId,
    /// The user again, under the name that services behind us read.
    pub user_id: UserId,
    /// Phone number in E.164, if known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub phone: Option<String>,
    /// The only device it is good for; none: any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<DeviceName>,
    /// The session of an account it belongs to; none: it was made by a tool, and only its expiry ends it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sid: Option<Sid>,
    /// Issued at, seconds since 1970.
    pub iat: u64,
    /// Not before, seconds since 1970.
    pub nbf: u64,
    /// Expires, seconds since 1970.
    pub exp: u64,
    /// Issuer.
    pub iss: String,
    /// Audience.
    pub aud: String,
}

impl Claims {
    /// Claims of a new token of a user.
    pub fn new(user: UserId, device: Option<DeviceName>, now_s: u64) -> Self {
        Self {
            sub: user,
            user_id: user,
            phone: None,
            device,
            sid: None,
            iat: now_s,
            nbf: now_s,
            exp: now_s + LIFETIME_S,
            iss: ISSUER.into(),
            aud: ISSUER.into(),
        }
    }
}

/// Signs and checks tokens with one secret; may accept an older one, and heeds the sessions that have ended.
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    previous: Option<DecodingKey>,
    revoked: Arc<Revoked>,
    validation: Validation,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// With a secret of at least [`SECRET_BYTES_MIN`].
    ///
    /// # Errors
    /// [`GatewayError::Secret`] when it is shorter.
    pub fn new(secret: &[u8]) -> Result<Self, GatewayError> {
        long_enough(secret)?;
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        validation.set_audience(&[ISSUER]);
        validation.set_issuer(&[ISSUER]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_S;
        let (encoding, decoding) = (EncodingKey::from_secret(secret), DecodingKey::from_secret(secret));
        Ok(Self { encoding, decoding, previous: None, revoked: Arc::default(), validation })
    }

    /// Accepts tokens of an older secret as well, until they have expired: so a secret can be changed and nobody is thrown out.
    ///
    /// # Errors
    /// [`GatewayError::Secret`] when it is too short.
    pub fn accepting(self, previous: &[u8]) -> Result<Self, GatewayError> {
        long_enough(previous)?;
        Ok(Self { previous: Some(DecodingKey::from_secret(previous)), ..self })
    }

    /// The sessions whose tokens are refused. Whoever ends one adds it here.
    pub fn revoked(&self) -> &Arc<Revoked> {
        &self.revoked
    }

    /// Whether the session of a token has ended since it was verified.
    pub fn is_revoked(&self, sid: Option<Sid>) -> bool {
        sid.is_some_and(|sid| self.revoked.contains(sid))
    }

    /// A signed token.
    ///
    /// # Errors
    /// [`GatewayError::Token`] if it cannot be signed.
    pub fn sign(&self, claims: &Claims) -> Result<String, GatewayError> {
        Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.encoding)?)
    }

    /// The claims of a good token. The signature is compared in constant time by the library.
    ///
    /// # Errors
    /// [`GatewayError::Token`] or [`GatewayError::Claims`]; the client only learns that it is not good.
    pub fn verify(&self, token: &str) -> Result<Claims, GatewayError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(GatewayError::Claims("too long"));
        }
        let by = |key| jsonwebtoken::decode::<Claims>(token, key, &self.validation);
        let decoded = match (by(&self.decoding), &self.previous) {
            (Err(why), Some(previous)) if matches!(why.kind(), ErrorKind::InvalidSignature) => by(previous),
            (decoded, _) => decoded,
        };
        let claims = decoded?.claims;
        if claims.sub != claims.user_id {
            return Err(GatewayError::Claims("sub and user_id differ"));
        }
        if self.is_revoked(claims.sid) {
            return Err(GatewayError::Claims("its session has ended"));
        }
        Ok(claims)
    }
}

fn long_enough(secret: &[u8]) -> Result<(), GatewayError> {
    if secret.len() < SECRET_BYTES_MIN { Err(GatewayError::Secret(secret.len())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use accounts::session::Ended;
    use serde_json::{Value, json};

    const SECRET: &[u8] = &[7; 32];

    fn now_s() -> u64 {
        jiff::Timestamp::now().as_second().try_into().unwrap()
    }

    fn signed(header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(SECRET)).unwrap()
    }

    #[test]
    fn a_token_comes_back_as_its_claims() {
        let tokens = Tokens::new(SECRET).unwrap();
        let claims = Claims::new(UserId::new(42).unwrap(), Some("phone-1".parse().unwrap()), now_s());
        assert_eq!(tokens.verify(&tokens.sign(&claims).unwrap()).unwrap(), claims);
    }

    #[test]
    fn wrong_claims_are_refused() {
        let tokens = Tokens::new(SECRET).unwrap();
        let good = serde_json::to_value(Claims::new(UserId::new(42).unwrap(), None, now_s())).unwrap();
        assert!(tokens.verify(&signed(&Header::new(Algorithm::HS256), &good)).is_ok());
        let soon = now_s() + 3600;
        let rows = [
            ("exp", json!(now_s() - 60)),
            ("exp", json!("9999999999")),
            ("exp", Value::Null),
            ("exp", json!(-1)),
            ("exp", json!("1e400")),
            ("nbf", json!(soon)),
            ("nbf", json!("0")),
            ("nbf", Value::Null),
            ("aud", json!("other")),
            ("aud", json!(["other"])),
            ("iss", json!("other")),
            ("iss", Value::Null),
            ("sub", json!(42)),
            ("sub", json!("0")),
            ("sub", json!("43")),
            ("user_id", Value::Null),
            ("device", json!("a b")),
            ("device", json!(7)),
            ("phone", json!(49)),
            ("sid", json!(1)),
            ("sid", json!("x")),
            ("sid", json!(["0123456789abcdef0123456789abcdef"])),
        ];
        for (claim, value) in rows {
            let mut claims = good.clone();
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(claim);
            } else {
                claims[claim] = value.clone();
            }
            assert!(tokens.verify(&signed(&Header::new(Algorithm::HS256), &claims)).is_err(), "{claim} = {value}");
        }
    }

    #[test]
    fn an_older_secret_is_accepted_and_not_used() {
        let tokens = Tokens::new(&[8; 32]).unwrap().accepting(SECRET).unwrap();
        let old = Tokens::new(SECRET).unwrap();
        let claims = Claims::new(UserId::new(42).unwrap(), None, now_s());
        assert!(tokens.verify(&old.sign(&claims).unwrap()).is_ok());
        assert!(old.verify(&tokens.sign(&claims).unwrap()).is_err());
        let late = Claims { exp: now_s() - 60, ..claims.clone() };
        assert!(tokens.verify(&old.sign(&late).unwrap()).is_err(), "and its tokens expire");
        assert!(tokens.verify(&Tokens::new(&[9; 32]).unwrap().sign(&claims).unwrap()).is_err());
        assert!(Tokens::new(SECRET).unwrap().accepting(&[1; 31]).is_err());
    }

    #[test]
    fn tokens_of_an_ended_session_are_refused_and_those_without_one_are_not() {
        let tokens = Tokens::new(SECRET).unwrap();
        let (user, sid) = (UserId::new(42).unwrap(), Sid::random());
        let of = |sid| tokens.sign(&Claims { sid, ..Claims::new(user, None, now_s()) }).unwrap();
        let (ended, other, none) = (of(Some(sid)), of(Some(Sid::random())), of(None));
        assert!(tokens.verify(&ended).is_ok());
        tokens.revoked().add(&Ended { sid, user, access_until_ms: u64::MAX / 2 });
        assert!(tokens.verify(&ended).is_err());
        assert!(tokens.verify(&other).is_ok());
        assert!(tokens.verify(&none).is_ok());
    }

    #[test]
    fn other_algorithms_and_keys_are_refused() {
        let tokens = Tokens::new(SECRET).unwrap();
        let good = serde_json::to_value(Claims::new(UserId::new(42).unwrap(), None, now_s())).unwrap();
        assert!(tokens.verify(&signed(&Header::new(Algorithm::HS384), &good)).is_err());
        let token = signed(&Header::new(Algorithm::HS256), &good);
        let (_, rest) = token.split_once('.').unwrap();
        let payload = rest.split_once('.').unwrap().0;
        for header in ["eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6Ii4uLy4uL2tleSJ9"] {
            assert!(tokens.verify(&format!("{header}.{payload}.")).is_err());
        }
        assert!(Tokens::new(&[8; 32]).unwrap().verify(&token).is_err());
        assert!(Tokens::new(&[8; 31]).is_err());
        for bad in ["", "x", "a.b.c", &"e".repeat(100 * 1024), "é.é.é"] {
            assert!(tokens.verify(bad).is_err());
        }
    }
}
