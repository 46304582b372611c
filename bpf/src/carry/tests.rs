//! Tables and backends as bytes.
