//! Tests against real processes; one module per subject.
