//! Addresses for Services: those they have, those they ask for, those that are free.
