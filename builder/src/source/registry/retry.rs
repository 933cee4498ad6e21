//! When and for how long to wait before a request is made again.

use std::time::{Duration, SystemTime};

use reqwest::{StatusCode, header::HeaderMap};

use crate::source::Retry;

/// Whether a status may be another one a moment later.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// What `Retry-After` asks for: seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}

/// The pause before attempt number `attempt` (1 is the second try): doubling, and a bit uneven so that many nodes that
/// failed together do not come back together.
pub(super) fn pause(retry: &Retry, attempt: u32) -> Duration {
    let doubled = retry.pause.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(retry.longest);
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    let uneven = doubled.mul_f64(f64::from(nanos % 1000) / 4000.0);
    (doubled + uneven).min(retry.longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(reqwest::header::RETRY_AFTER, value.parse().expect("a header"))])
    }

    #[test]
    fn retry_after_in_both_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 10);
        assert_eq!(retry_after(&headers("7"), now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("Sun, 06 Nov 1994 08:49:37 GMT"), now), Some(Duration::from_secs(10)));
        let later = now + Duration::from_secs(60);
        assert_eq!(retry_after(&headers("Sun, 06 Nov 1994 08:49:37 GMT"), later), Some(Duration::ZERO));
        assert_eq!(retry_after(&headers("soon"), now), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let retry = Retry { attempts: 9, pause: Duration::from_secs(1), longest: Duration::from_secs(5) };
        for (attempt, least) in [(1, 1), (2, 2), (3, 4), (4, 5), (60, 5)] {
            let pause = pause(&retry, attempt);
            assert!(pause >= Duration::from_secs(least) && pause <= Duration::from_secs(5), "{attempt}: {pause:?}");
        }
    }
}
