// A server of Go's gorilla/websocket for the client of syncws: gorilla VERSION
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/gorilla/websocket"
)

const patience = 20 * time.Second

var ends = make(chan string, 10)

// A buffer this short makes fragments of a message of three parts.
var upgrader = websocket.Upgrader{Subprotocols: []string{"chat.v2"}, EnableCompression: true}
var fragmenting = websocket.Upgrader{WriteBufferSize: 5}

func echo(connection *websocket.Conn) {
	for {
		kind, data, err := connection.ReadMessage()
		if err != nil {
			return
		}
		connection.WriteMessage(kind, data)
	}
}

func fragments(connection *websocket.Conn) {
	writer, _ := connection.NextWriter(websocket.TextMessage)
	for _, part := range []string{"one, ", "two, ", "three"} {
		writer.Write([]byte(part))
	}
	writer.Close()
	connection.ReadMessage()
}

func ping(connection *websocket.Conn) {
	connection.SetPongHandler(func(string) error {
		return connection.WriteMessage(websocket.TextMessage, []byte("answered"))
	})
	connection.WriteControl(websocket.PingMessage, []byte("x"), time.Now().Add(patience))
	connection.ReadMessage()
}

func closes(connection *websocket.Conn) {
	frame := websocket.FormatCloseMessage(4001, "Größe")
	connection.WriteControl(websocket.CloseMessage, frame, time.Now().Add(patience))
	connection.ReadMessage()
}

func closed(connection *websocket.Conn) {
	_, _, err := connection.ReadMessage()
	if end, ok := err.(*websocket.CloseError); ok {
		ends <- fmt.Sprintf("%d %s", end.Code, end.Text)
	}
}

func report(connection *websocket.Conn) {
	connection.WriteMessage(websocket.TextMessage, []byte(<-ends))
	connection.ReadMessage()
}

func handle(path string, upgrader *websocket.Upgrader, act func(*websocket.Conn)) {
	http.HandleFunc(path, func(writer http.ResponseWriter, request *http.Request) {
		connection, err := upgrader.Upgrade(writer, request, nil)
		if err != nil {
			return
		}
		defer connection.Close()
		act(connection)
	})
}

func main() {
	handle("/echo", &upgrader, echo)
	handle("/joined", &upgrader, echo)
	handle("/fragments", &fragmenting, fragments)
	handle("/ping", &upgrader, ping)
	handle("/close", &upgrader, closes)
	handle("/closed", &upgrader, closed)
	handle("/report", &upgrader, report)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	fmt.Printf("{\"version\": %q, \"port\": %d}\n", os.Args[1], port)
	panic(http.Serve(listener, nil))
}
