module spinfer/benches/go

go 1.24
