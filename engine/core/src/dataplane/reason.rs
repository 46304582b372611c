//! From what the parser says to what is counted.

use lockstep_plan::DropReason;
use lockstep_wire::ParseError;

/// The drop reason that a parse error is counted under.
pub(crate) fn reason(error: ParseError) -> DropReason {
    match error {
        ParseError::Truncated => DropReason::Truncated,
        ParseError::Malformed => DropReason::Malformed,
        ParseError::BadChecksum => DropReason::BadChecksum,
        ParseError::HeaderChain => DropReason::HeaderChain,
        ParseError::Fragment => DropReason::Fragment,
        ParseError::NotIp => DropReason::NotIp,
        ParseError::NotTransport => DropReason::NotTransport,
        ParseError::TtlExceeded => DropReason::TtlExceeded,
    }
}
