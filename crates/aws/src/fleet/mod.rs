//! Fleet on EC2 Auto Scaling.
