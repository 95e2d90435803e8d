//! What went wrong with TLS, for a person.

use super::{Refused, SPEAK_TLS};
use std::{error::Error, io};
use tokio_rustls::rustls::{
    self, AlertDescription as Alert, CertificateError as Bad, InvalidMessage, pki_types::UnixTime,
};

/// Errors that stand inside one another are looked through so deep.
const DEPTH_MAX: usize = 16;

/// One sentence where TLS is why an operation failed, somewhere in the chain of its causes; `None` where it is something
/// else.
pub fn sentence(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    for _ in 0..DEPTH_MAX {
        let error = next?;
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return Some(refused.to_string());
        }
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(of(tls));
        }
        let text = error.to_string();
        // A door that speaks TLS alone says so to who does not.
        if text.contains(SPEAK_TLS) {
            return Some(SPEAK_TLS.to_owned());
        }
        // HTTP/2 keeps the words of what ended its connection, and not the error.
        let heard = ALERTS.into_iter().find(|alert| text == rustls::Error::AlertReceived(*alert).to_string());
        if let Some(alert) = heard {
            return Some(alert_sentence(alert));
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn date(time: UnixTime) -> String {
    let moment =
        i64::try_from(time.as_secs()).ok().and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
    moment.map_or_else(
        || "an unknown day".to_owned(),
        |t| format!("{} {:02}:{:02} UTC", t.date(), t.hour(), t.minute()),
    )
}

fn of(error: &rustls::Error) -> String {
    use rustls::Error as Tls;
    match error {
        Tls::InvalidCertificate(why) => certificate(why),
        Tls::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS: use http:// (nats://, redis://), or turn its TLS on".to_owned()
        }
        Tls::NoCertificatesPresented => {
            "the caller showed no certificate, and this door demands one".to_owned()
        }
        Tls::AlertReceived(alert) => alert_sentence(*alert),
        Tls::PeerIncompatible(why) => format!("the two ends have no common TLS: {why:?}"),
        other => format!("TLS failed: {other}"),
    }
}

fn certificate(why: &Bad) -> String {
    match why {
        Bad::ExpiredContext { not_after, .. } => format!("its certificate ended on {}", date(*not_after)),
        Bad::Expired => "its certificate has ended".to_owned(),
        Bad::NotValidYetContext { not_before, .. } => {
            format!("its certificate is not valid before {}", date(*not_before))
        }
        Bad::NotValidYet => "its certificate is not valid yet".to_owned(),
        Bad::UnknownIssuer | Bad::BadSignature => {
            "its certificate is signed by no authority that is believed here".to_owned()
        }
        Bad::NotValidForNameContext { expected, presented } => {
            let names = if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") };
            format!("its certificate is for {names}, not for {}", expected.to_str())
        }
        Bad::NotValidForName => "its certificate is for another name".to_owned(),
        Bad::Revoked => "its certificate is revoked".to_owned(),
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => {
            "its certificate is not for this side of a connection".to_owned()
        }
        other => format!("its certificate cannot be believed: {other}"),
    }
}

/// The alerts that have a sentence.
const ALERTS: [Alert; 10] = [
    Alert::CertificateRequired,
    Alert::CertificateExpired,
    Alert::UnknownCA,
    Alert::BadCertificate,
    Alert::DecryptError,
    Alert::UnsupportedCertificate,
    Alert::CertificateUnknown,
    Alert::AccessDenied,
    Alert::CertificateRevoked,
    Alert::ProtocolVersion,
];

fn alert_sentence(alert: Alert) -> String {
    match alert {
        Alert::CertificateRequired => "it demands a certificate, and none was shown".to_owned(),
        Alert::CertificateExpired => "it refused our certificate: it has ended, or begins later".to_owned(),
        Alert::UnknownCA | Alert::BadCertificate | Alert::DecryptError => {
            "it refused our certificate: signed by no authority that it believes".to_owned()
        }
        Alert::UnsupportedCertificate | Alert::CertificateUnknown | Alert::AccessDenied => {
            "it refused our certificate".to_owned()
        }
        Alert::CertificateRevoked => "it refused our certificate: it is revoked".to_owned(),
        Alert::ProtocolVersion => "the two ends have no common version of TLS".to_owned(),
        other => format!("it ended the handshake: {other:?}"),
    }
}
