//! Numbered requests and responses, error codes and the key-value trait of the cluster.
