//! Frames that the parser does not follow to a flow: errors about flows, pings, fragments.

use super::{Flows, Now, Verdict, reason};
use crate::tables::{PortId, Tables, VipRef};
use lockstep_wire::ParseError;

impl Flows {
    /// The verdict on a frame that the parser refused.
    #[cold]
    #[inline(never)]
    pub(super) fn unusual(
        &mut self,
        _tables: &Tables,
        _now: Now,
        _port: PortId,
        _frame: &mut [u8],
        error: ParseError,
    ) -> Verdict {
        self.drop(VipRef::UNKNOWN, reason(error))
    }
}
