//! Queue on SQS.
