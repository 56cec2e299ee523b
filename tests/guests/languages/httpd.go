// A server of net/http on the listener that its container inherits: descriptor 3 is its first containerPort.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
)

func main() {
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "no listener:", err)
		os.Exit(1)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		text, err := os.ReadFile("greeting")
		fmt.Fprintf(w, "go %s %s %s%v\n", r.Method, r.URL.Path, text, err)
	})
	fmt.Println("serving")
	fmt.Fprintln(os.Stderr, http.Serve(listener, nil))
	os.Exit(1)
}
