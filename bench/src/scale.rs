//! How much is measured.

/// Row counts and times of one run of the benchmarks.
#[derive(Debug, Clone)]
pub struct Scale {
    /// Rows of the tables that are compared, replicated and changed.
    pub rows: u64,
    /// Rows of the table that is fingerprinted.
    pub fingerprint_rows: u64,
    /// Rows of the smaller of two replicas whose versions are asked for.
    pub few_rows: u64,
    /// Rows that are uploaded.
    pub upload_rows: u64,
    /// Rows of one upload.
    pub batch_rows: u64,
    /// Scattered differences that are found and repaired.
    pub differences: u64,
    /// How often a call that takes less than a millisecond is made.
    pub calls: u32,
    /// Seconds for which an application changes rows, in all rounds together.
    pub application_seconds: u64,
    /// How often each contestant is measured.
    pub rounds: usize,
    /// Whether committed work survives a power failure.
    pub durable: bool,
}

impl Scale {
    /// A few minutes: a million rows.
    pub fn quick() -> Self {
        Scale {
            rows: 1_000_000,
            fingerprint_rows: 2_000_000,
            few_rows: 10_000,
            upload_rows: 500_000,
            batch_rows: 20_000,
            differences: 100,
            calls: 2_000,
            application_seconds: 12,
            rounds: 3,
            durable: true,
        }
    }

    /// As long as it takes: ten million rows where size matters.
    pub fn full() -> Self {
        Scale {
            rows: 10_000_000,
            upload_rows: 1_000_000,
            application_seconds: 60,
            rounds: 5,
            ..Self::quick()
        }
    }

    /// Seconds: enough to see that everything works, too little to say anything.
    pub fn smoke(rows: u64) -> Self {
        Scale {
            rows,
            fingerprint_rows: rows,
            few_rows: rows / 20,
            upload_rows: rows,
            batch_rows: rows / 4,
            calls: 10,
            application_seconds: 1,
            rounds: 1,
            durable: false,
            ..Self::quick()
        }
    }
}
