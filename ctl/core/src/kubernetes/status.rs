//! What the leader writes to Services, pools and advertisements.
