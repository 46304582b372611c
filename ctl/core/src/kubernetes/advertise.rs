//! Which addresses are announced, by what way and with which attributes.
