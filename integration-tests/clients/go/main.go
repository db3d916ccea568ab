// The client of Go's pkg/sftp, with concurrent writes: takes a step as its command line. One that fails ends with code 1.
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(step string, paths []string) error {
	client, err := connect()
	if err != nil {
		return err
	}
	defer client.Close()
	switch step {
	case "put":
		return put(client, paths[0], paths[1])
	case "put-with-times":
		about, err := os.Stat(paths[0])
		if err != nil {
			return err
		}
		return errors.Join(put(client, paths[0], paths[1]), client.Chtimes(paths[1], about.ModTime(), about.ModTime()))
	case "put-renamed":
		temp := paths[1] + ".filepart"
		if err := put(client, paths[0], temp); err != nil {
			return err
		}
		return client.PosixRename(temp, paths[1])
	case "put-and-stat":
		if err := put(client, paths[0], paths[1]); err != nil {
			return err
		}
		about, err := client.Stat(paths[1])
		if err != nil {
			return err
		}
		fmt.Println(about.Size())
		return nil
	case "resume":
		return resume(client, paths[0], paths[1])
	case "put-tree":
		return putTree(client, paths[0], paths[1])
	case "put-at-once":
		ends := make(chan error)
		for at := 0; at+1 < len(paths); at += 2 {
			go func() { ends <- put(client, paths[at], paths[at+1]) }()
		}
		var failed error
		for range len(paths) / 2 {
			failed = errors.Join(failed, <-ends)
		}
		return failed
	case "list":
		entries, err := client.ReadDir(paths[0])
		for _, entry := range entries {
			fmt.Println(entry.Size(), entry.Name())
		}
		return err
	case "get":
		return get(client, paths[0], paths[1])
	case "remove":
		return client.Remove(paths[0])
	}
	return fmt.Errorf("no step %s", step)
}

func connect() (*sftp.Client, error) {
	known, err := knownhosts.New(os.Getenv("GATE_KNOWN_HOSTS"))
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(os.Getenv("GATE_KEY"))
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, err
	}
	config := &ssh.ClientConfig{
		User:              os.Getenv("GATE_USER"),
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback:   known,
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	}
	connection, err := ssh.Dial("tcp", os.Getenv("GATE_HOST")+":"+os.Getenv("GATE_PORT"), config)
	if err != nil {
		return nil, err
	}
	return sftp.NewClient(connection, sftp.UseConcurrentWrites(true))
}

func put(client *sftp.Client, local, remote string) error {
	source, err := os.Open(local)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := client.Create(remote)
	if err != nil {
		return err
	}
	// What CLOSE says matters as much.
	_, err = target.ReadFrom(source)
	return errors.Join(err, target.Close())
}

func resume(client *sftp.Client, local, remote string) error {
	source, err := os.Open(local)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := client.OpenFile(remote, os.O_WRONLY)
	if err != nil {
		return err
	}
	at, err := target.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = source.Seek(at, io.SeekStart)
	}
	if err == nil {
		_, err = target.ReadFrom(source)
	}
	return errors.Join(err, target.Close())
}

func putTree(client *sftp.Client, local, remote string) error {
	return filepath.WalkDir(local, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(local, path)
		if err != nil {
			return err
		}
		there := sftp.Join(remote, filepath.ToSlash(below))
		if entry.IsDir() {
			return client.Mkdir(there)
		}
		return put(client, path, there)
	})
}

func get(client *sftp.Client, remote, local string) error {
	source, err := client.Open(remote)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(local)
	if err != nil {
		return err
	}
	_, err = source.WriteTo(target)
	return errors.Join(err, target.Close())
}
