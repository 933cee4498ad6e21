//! Arguments as parsed, then the plan as resolved, then the plan carried out.
