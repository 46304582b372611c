//! Where an HTTP response ends.

/// Reads a response as it comes, however it is cut, and keeps no byte of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    at: At,
    /// Bytes of the body that are still to come; none as long as nobody has said how many.
    body: Option<u64>,
    /// The first digit of the status.
    class: u8,
}

/// What was read of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// There is more to come.
    Part,
    /// All of it; and whether its status is below 400.
    Whole {
        /// Not an error.
        good: bool,
    },
    /// No length was said: it ends with the connection.
    Endless,
    /// It is not HTTP, or more than was asked for.
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// So many bytes of the first line.
    Status(u8),
    /// So many bytes of a line, all as in the name that is looked for.
    Name(u8),
    /// In a line's value that says the length.
    Length,
    /// In a line that does not matter.
    Line,
    /// In the body.
    Body,
}

const NAME: &[u8] = b"content-length:";
/// `HTTP/1.1 200`: the first digit's place.
const CLASS: u8 = 9;

impl Response {
    /// Of which nothing came yet.
    pub const fn new() -> Self {
        Response {
            at: At::Status(0),
            body: None,
            class: 0,
        }
    }

    /// Takes in what comes next.
    pub fn take(&mut self, bytes: &[u8]) -> Read {
        let mut bytes = bytes.iter();
        while self.at != At::Body {
            let Some(byte) = bytes.next() else {
                return Read::Part;
            };
            if !self.header(byte.to_ascii_lowercase()) {
                return Read::Broken;
            }
        }
        let Some(left) = &mut self.body else {
            return Read::Endless;
        };
        match left.checked_sub(bytes.as_slice().len() as u64) {
            None => Read::Broken,
            Some(0) => Read::Whole {
                good: self.class < b'4',
            },
            Some(less) => {
                *left = less;
                Read::Part
            }
        }
    }

    /// One byte of the header, in lower case; whether it can be one.
    fn header(&mut self, byte: u8) -> bool {
        self.at = match (self.at, byte) {
            (At::Status(CLASS), b'1'..=b'5') => {
                self.class = byte;
                At::Line
            }
            (At::Status(at @ 0..=4), _) if byte == b"http/"[usize::from(at)] => At::Status(at + 1),
            (At::Status(at @ 5..CLASS), b'0'..=b'9' | b'.' | b' ') => At::Status(at + 1),
            (At::Status(_), _) => return false,
            (At::Name(0), b'\n') => At::Body,
            // The line may end with more than a line feed.
            (At::Name(0), b'\r') => At::Name(0),
            (At::Name(at), _) if byte == NAME[usize::from(at)] => {
                let at = at + 1;
                if usize::from(at) == NAME.len() {
                    self.body = Some(0);
                    At::Length
                } else {
                    At::Name(at)
                }
            }
            (At::Length, b'0'..=b'9') => {
                let digit = u64::from(byte - b'0');
                let body = self
                    .body
                    .and_then(|body| body.checked_mul(10)?.checked_add(digit));
                let Some(body) = body else {
                    return false;
                };
                self.body = Some(body);
                At::Length
            }
            (At::Length, b' ' | b'\t' | b'\r') => At::Length,
            (At::Name(_) | At::Length | At::Line, b'\n') => At::Name(0),
            (At::Length, _) => return false,
            (At::Name(_) | At::Line, _) => At::Line,
            (At::Body, _) => At::Body,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str =
        "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 5\r\nContent: x\r\n\r\nhello";

    fn take(text: &str) -> Read {
        Response::new().take(text.as_bytes())
    }

    #[test]
    fn rows() {
        for (says, text, read) in [
            ("whole", GOOD, Read::Whole { good: true }),
            ("a byte less", &GOOD[..GOOD.len() - 1], Read::Part),
            ("nothing", "", Read::Part),
            ("the header alone", &GOOD[..GOOD.len() - 5], Read::Part),
            (
                "without a body",
                "HTTP/1.1 204 No\r\ncontent-length:0\r\n\r\n",
                Read::Whole { good: true },
            ),
            (
                "an error",
                "HTTP/1.0 503 no\r\nCONTENT-LENGTH: 1 \r\n\r\nx",
                Read::Whole { good: false },
            ),
            ("no length", "HTTP/1.1 200 OK\r\n\r\n", Read::Endless),
            (
                "too much",
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy",
                Read::Broken,
            ),
            ("another protocol", "SSH-2.0-OpenSSH", Read::Broken),
            (
                "no number",
                "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
                Read::Broken,
            ),
            (
                "too large",
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
                Read::Broken,
            ),
        ] {
            assert_eq!(take(text), read, "{says}");
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_it_is_cut(cuts in prop::collection::vec(0..GOOD.len(), 0..6)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut response = Response::new();
            let mut from = 0;
            for to in cuts {
                prop_assert_eq!(response.take(&GOOD.as_bytes()[from..to]), Read::Part);
                from = to;
            }
            let rest = response.take(&GOOD.as_bytes()[from..]);
            prop_assert_eq!(rest, Read::Whole { good: true });
        }

        #[test]
        fn whatever_comes_is_read_without_a_panic(bytes: Vec<u8>, behind: Vec<u8>) {
            Response::new().take(&bytes);
            let mut text = GOOD.as_bytes()[..40].to_vec();
            text.extend(behind);
            Response::new().take(&text);
        }
    }
}
